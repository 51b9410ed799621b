"""One-off studies on the public interface of the benchmark; not part of the wheel."""
