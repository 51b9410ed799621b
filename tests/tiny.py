"""Potentials of a few hundred parameters, saved in the format of their library; untrained."""

from pathlib import Path

import numpy as np

SYMBOLS = ("C", "Na", "Al", "Cl", "Ti", "Zn", "Se", "Br", "Zr", "Li")
ENERGY = -3.37
"""Of each atom [eV]; what the network adds is small."""


def matgl(folder, architecture="TensorNet", energy=ENERGY):
    """A saved `Potential`: model.pt, state.pt, model.json."""
    import torch
    from matgl import models
    from matgl.apps.pes import Potential

    small = {"units": 4, "nblocks": 1, "max_n": 2, "max_l": 2, "is_intensive": False}
    if architecture == "TensorNet":
        small |= {"num_rbf": 4}
    else:
        small |= {"dim_node_embedding": 4, "dim_edge_embedding": 4}
    torch.manual_seed(0)
    model = getattr(models, architecture)(element_types=SYMBOLS, **small)
    Potential(model, data_std=0.01, element_refs=[energy] * len(SYMBOLS)).save(folder)
    return Path(folder)


def cached_matgl(home, repo, **kwargs):
    """The same where huggingface_hub would have put it for matgl; the folder of its files."""
    kept = home / ".cache" / "matgl" / f"models--materialyze--{repo}"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0123abc")
    return matgl(kept / "snapshots" / "0123abc", **kwargs)


def chgnet(path):
    """A checkpoint as CHGNet's trainer leaves it."""
    import torch
    from chgnet.model.model import CHGNet

    torch.manual_seed(0)
    widths = dict.fromkeys(("atom_fea_dim", "bond_fea_dim", "angle_fea_dim"), 8)
    widths |= dict.fromkeys(("atom_conv_hidden_dim", "bond_conv_hidden_dim"), 8)
    model = CHGNet(**widths, num_radial=3, num_angular=3, n_conv=2, mlp_hidden_dims=(8,))
    torch.save({"model": model.as_dict(), "trainer_args": {"epochs": 0}}, path)
    return path


def mace(path, energy=ENERGY):
    """A pickled model, as mace-torch publishes them."""
    import torch
    from ase.data import atomic_numbers
    from e3nn import o3
    from mace import modules

    torch.manual_seed(0)
    numbers = sorted(atomic_numbers[symbol] for symbol in SYMBOLS)
    model = modules.ScaleShiftMACE(
        r_max=5.0,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=1,
        interaction_cls=modules.RealAgnosticResidualInteractionBlock,
        interaction_cls_first=modules.RealAgnosticResidualInteractionBlock,
        num_interactions=1,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps("4x0e"),
        MLP_irreps=o3.Irreps("4x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.full(len(numbers), energy),
        avg_num_neighbors=10.0,
        atomic_numbers=numbers,
        correlation=1,
        atomic_inter_scale=0.01,
        atomic_inter_shift=0.0,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.double(), path)
    return path


def chat_checkpoint(folder):
    """A decoder-only model with a chat template in the layout of the hub; it babbles."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    bpe.train_from_iterator(
        ["_cell_length_a 5.6400", "_atom_site_fract_x", "Na Na1 0.00000"],
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=letters),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}<s>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    widths = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, **widths, **heads, **ids)).save_pretrained(folder)
    return Path(folder)
