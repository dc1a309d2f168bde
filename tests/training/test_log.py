"""The log survives kills, half lines and NaN."""

import json
import os
from pathlib import Path

from boqsa.training.log import Log, read_log, seconds_of, values_of


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("started", 0, threads=1)
    log.append("step", 5, loss=0.25)
    assert read_log(tmp_path) == [
        {"event": "started", "step": 0, "threads": 1},
        {"event": "step", "step": 5, "loss": 0.25},
    ]


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_log(tmp_path) == []


def test_half_a_last_line_is_passed_over_and_cut(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("step", 5)
    with open(log.path, "ab") as file:
        file.write(b'{"event": "step", "st\xc3')  # killed in the middle of a character
    assert [row["step"] for row in read_log(tmp_path)] == [5]
    log.cut_after(5)
    log.append("step", 10)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [5, 10]


def test_cut_drops_only_what_comes_later(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for step in (0, 5, 10, 10, 15):
        log.append("step", step)
    log.cut_after(10)
    assert [row["step"] for row in read_log(tmp_path)] == [0, 5, 10, 10]
    log.cut_after(-1)
    assert read_log(tmp_path) == []


def test_nan_becomes_null_so_that_every_line_is_json(tmp_path: Path) -> None:
    Log(tmp_path).append("evaluation", 1, ari=float("nan"), shares=[float("inf"), 1.0], by={"iou": float("nan")})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    row = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=refuse)
    assert row == {"event": "evaluation", "step": 1, "ari": None, "shares": [None, 1.0], "by": {"iou": None}}


def test_what_was_changed_on_purpose_is_never_cut(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for event, step in (("step", 5), ("changed", 8), ("step", 10)):
        log.append(event, step)
    log.flush()
    log.cut_after(5)
    assert [(row["event"], row["step"]) for row in read_log(tmp_path)] == [("step", 5), ("changed", 8)]


def test_lines_that_are_no_rows_are_passed_over(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.append("step", 5)
    with open(log.path, "a", encoding="utf-8") as file:
        for line in ("[" * 200_000, "3", "[]", "null", '{"step": 1}', '{"event": "step", "step": "9"}', "9" * 100_000):
            file.write(line + "\n")
    log.append("step", 10)
    assert [row["step"] for row in read_log(tmp_path)] == [5, 10]


def test_what_is_no_number_is_no_value() -> None:
    found = [None, "fast", True, float("nan"), float("inf"), 10**400, 3, 0.5]
    rows = [{"event": "finished", "step": 1, "seconds": value} for value in found]
    assert values_of([*rows, {"event": "finished", "step": 1}], "seconds") == [True, 3, 0.5]
    assert seconds_of(rows) == 0.5
    assert seconds_of([{"event": "finished", "step": 1}, {"event": "step", "step": 1, "seconds": 2.0}]) is None


def test_a_pipe_for_a_log_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")  # opening it would wait for ever
    assert read_log(tmp_path) == []
    assert read_log(tmp_path, last_bytes=65_536) == []


def test_the_end_of_a_log_is_read_whole_rows_only(tmp_path: Path) -> None:
    assert read_log(tmp_path, last_bytes=65_536) == []
    row = '{"event": "step", "step": %d, "loss": 1.0}\n'
    text = "".join(row % step for step in range(1, 5001)) + '{"event": "st'
    (tmp_path / "log.jsonl").write_text(text)
    rows = read_log(tmp_path, last_bytes=65_536)
    assert rows[-1]["step"] == 5000
    assert 100 < len(rows) < 5000
    assert [row["step"] for row in rows] == list(range(rows[0]["step"], 5001))
    assert len(read_log(tmp_path)) == 5000
    assert len(read_log(tmp_path, last_bytes=10**9)) == 5000


def test_of_a_log_that_memory_cannot_hold_the_end_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "log.jsonl", "wb") as file:
        file.seek(1 << 36)  # a hole, which takes no disk; read whole, it would fill the memory
        file.write(b'\n{"event": "step", "step": 7}\n')
    assert read_log(tmp_path) == [{"event": "step", "step": 7}]
