"""Learning curves: what is trained, what is not trained again, and what table and figure say."""

import json

import pytest

from studies import learning_curves as curves
from studies.learning_curves import CurveTraining, main, rows, write

ARGUMENTS = ["--data", "embedded", "--data", "pairs.parquet", "--val", "v", "--test", "t"]


def arguments(*more):
    return curves._parser().parse_args([*ARGUMENTS, "--out", "out", *more])


def training(folder, student="t5", share=50):
    return CurveTraining(
        student=student, share=share, n_pairs=23, folder=folder / f"{student}-{share}"
    )


def test_both_students_are_trained_on_the_same_pairs_from_scratch(tmp_path):
    args = arguments("--steps", "7", "--epochs", "3", "--seed", "5")
    text = curves.configuration(training(tmp_path), args)
    graph = curves.configuration(training(tmp_path, "gnn-delta"), args)
    for each in (text, graph):
        assert each.data == ("embedded", "pairs.parquet")
        assert (each.limit, each.seed) == (23, 5)
    assert (text.steps, text.eval_steps, text.init) == (7, 7, ())
    assert graph.epochs == 3


def card(**more):
    return {"n_pairs": 23, "steps": 7, "epochs": 1.5, "n_parameters": 99, **more}


def board(trainings):
    def row(model, value):
        metric = {"point": value, "low": value - 0.1, "high": value + 0.1, "n": 4}
        return {"model": model, "metrics": dict.fromkeys(curves.SHOWN, metric)}

    return {
        "rows": [
            row("identity", 0.5),
            row("t5", 0.125),
            *(row(x.label, 0.25 * k) for k, x in trainings),
        ]
    }


def test_table_and_figure_show_each_student_beside_no_change(tmp_path):
    trainings = [training(tmp_path, student) for student in curves.STUDENTS]
    for each in trainings:
        each.folder.mkdir()
    trainings[0].card.write_text(json.dumps({"training": card()}))
    graph = card(n=23, settings={"epochs": 4})
    del graph["n_pairs"], graph["epochs"]
    trainings[1].card.write_text(json.dumps(graph))
    found = list(rows(board(enumerate(trainings, 1)), trainings, ["t5"]))
    write(found, tmp_path, {"name": "toy", "n_samples": 4})
    text = (tmp_path / "curves.md").read_text()
    assert "# Learning curves on toy, 4 samples" in text
    assert "| 23 | text (T5) | 7 | 2 | 99 | 0.250 [0.150, 0.350] |" in text
    assert "| 23 | graph (gnn-delta) | 7 | 4 | 99 | 0.500 [0.400, 0.600] |" in text
    assert "|  | no change |  |  |  | 0.500 [0.400, 0.600] |" in text
    assert "|  | t5, packaged |  |  |  | 0.125 [0.025, 0.225] |" in text
    assert (tmp_path / "curves.csv").read_text().count("\n") == 1 + 4 * len(curves.SHOWN)
    assert "lattice MAE (Å)" in (tmp_path / "curves.svg").read_text()


@pytest.mark.parametrize(
    "wrong", [["--shares", "0,50"], ["--shares", "50,x"], ["--students", "t5,cgcnn"]]
)
def test_a_slip_in_the_command_is_refused_before_any_training(wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*ARGUMENTS, "--out", "out", *wrong])
    assert stopped.value.code == 2


def test_data_that_are_not_there_are_one_line(tmp_path, capsys):
    assert main(["--data", "no.parquet", "--val", "v", "--test", "t", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_training_of_other_settings_is_not_taken_for_this_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(curves, "_size", lambda _: 46)
    monkeypatch.setattr(curves, "train_text", lambda *_: pytest.fail("nothing is to run"))
    data = ["--data", "embedded", "--val", "embedded", "--test", "embedded"]
    given = [*data, "--out", str(tmp_path), "--students", "t5", "--shares", "50"]
    config = curves.configuration(
        training(tmp_path), curves._parser().parse_args([*given, "--steps", "7"])
    )
    pairs = curves.read_training_data(config.data, config.val, limit=config.limit)
    record = {"identity": curves.text_identity(config, *pairs)}
    config.out.mkdir()
    (config.out / "t2relax.json").write_text(json.dumps({"training": record}))
    assert curves.is_done(training(tmp_path), config)
    assert main([*given, "--steps", "8"]) == 2
    assert "steps is 7 there and 8 here" in capsys.readouterr().err
    assert main([*given, "--beside", "t6"]) == 2
    assert "did you mean t5" in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_run_trains_nothing_again(tmp_path, monkeypatch):
    command = ["--data", "embedded", "--val", "embedded", "--test", "embedded", "--limit", "4"]
    command += ["--students", "gnn-delta", "--shares", "20,100", "--epochs", "1", "--beside", ""]
    assert main([*command, "--out", str(tmp_path)]) == 0
    first = (tmp_path / "curves.md").read_text()
    assert "| 9 | graph (gnn-delta) | 1 |" in first
    assert "| 47 | graph (gnn-delta) | 1 |" in first
    made = json.loads((tmp_path / "curves.json").read_text())
    assert [made[f"gnn-delta-{share}"]["n"] for share in (20, 100)] == [9, 47]
    assert [made[f"gnn-delta-{share}"]["config"]["limit"] for share in (20, 100)] == [9, None]
    assert "| gnn-delta-20 |" in (tmp_path / "curves-board.md").read_text()
    started = []
    run = curves.run_models
    monkeypatch.setattr(curves, "train_graph", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(curves, "run_models", lambda argv: (started.append(argv[0]), run(argv))[1])
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert started == ["--models"]
    assert (tmp_path / "curves.md").read_text() == first
