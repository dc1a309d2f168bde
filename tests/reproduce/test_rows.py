"""Rows to CSV and back, bit for bit; and files that are not such a CSV."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from boqsa.errors import InputError
from boqsa.reproduce.rows import Row, read_rows, write_rows

PROTOCOL = (
    "data=scenes; variant=renderer 4; split=test; images=1000; image_size=32; slots=5; masks=decoder; metric=ari_fg; "
    "recipe=a1b2"
)
ROW = Row("BO-QSA (mixture)", "scenes", "ari_fg", "", 0, "last", PROTOCOL, 0.1)

rows = st.builds(
    Row,
    method=st.sampled_from(["SA", "BO-QSA (mixture)", "Melas-Kyriazi et al. (2021)"]),
    dataset=st.sampled_from(["scenes", "dogs"]),
    metric=st.sampled_from(["ari_fg", "mse_per_image"]),
    condition=st.sampled_from(["", "test_iterations=5", "test_iterations=5;trained_on=dogs"]),
    seed=st.integers(0, 12) | st.integers(0, 2**62),
    selection=st.sampled_from(["last", "best_loss", "best_ari_fg"]),
    protocol=st.sampled_from([PROTOCOL, PROTOCOL.replace("1000", "?")]),
    value=st.floats(allow_nan=False, allow_infinity=False),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(rows, unique_by=lambda row: row[:-1], max_size=8))
def test_rows_come_back_bit_for_bit_in_one_order(tmp_path: Path, rows: list[Row]) -> None:
    path = tmp_path / "results.csv"
    write_rows(path, rows)
    written = path.read_bytes()
    back = read_rows(path)
    assert sorted(map(repr, back)) == sorted(map(repr, rows))
    assert {struct.pack("d", row.value) for row in back} == {struct.pack("d", row.value) for row in rows}
    write_rows(path, list(reversed(back)))
    assert path.read_bytes() == written


def test_the_file_is_a_plain_csv(tmp_path: Path) -> None:
    write_rows(tmp_path / "results.csv", [ROW, ROW._replace(seed=10), ROW._replace(seed=9, value=1)])
    assert (tmp_path / "results.csv").read_text() == (
        "method,dataset,metric,condition,seed,selection,protocol,value\n"
        f"BO-QSA (mixture),scenes,ari_fg,,0,last,{PROTOCOL},0.1\n"
        f"BO-QSA (mixture),scenes,ari_fg,,9,last,{PROTOCOL},1.0\n"
        f"BO-QSA (mixture),scenes,ari_fg,,10,last,{PROTOCOL},0.1\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": float("nan")}, "the value of BO-QSA (mixture) on scenes, seed 0, is nan; leave such a row out"),
        ({"value": float("inf")}, "is inf"),
        ({"seed": -1}, "the seed is -1"),
        ({"selection": "best"}, "the selection is 'best'; it must be last, best_loss or best_<metric>"),
        ({"condition": "trained_on"}, "the condition is 'trained_on'"),
        ({"condition": "trained_on=dogs;"}, "the condition is 'trained_on=dogs;'"),
        ({"method": ""}, "the method is ''"),
        ({"method": "SA, own"}, "the method is 'SA, own'"),
        ({"dataset": "a\nb"}, "the dataset is"),
        ({"protocol": "test"}, "'test' is no protocol"),
    ],
)
def test_a_bad_row_is_not_written_and_the_old_file_stays(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "results.csv"
    write_rows(path, [ROW])
    before = path.read_bytes()
    with pytest.raises(InputError) as error:
        write_rows(path, [ROW, ROW._replace(**change)])  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_a_number_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seed 0, last is there twice"):
        write_rows(tmp_path / "results.csv", [ROW, ROW._replace(value=0.2)])
    write_rows(tmp_path / "results.csv", [ROW])
    with (tmp_path / "results.csv").open("a") as file:
        file.write((tmp_path / "results.csv").read_text().splitlines()[1] + "\n")
    with pytest.raises(InputError, match="seed 0, last is there twice"):
        read_rows(tmp_path / "results.csv")


HEADER = "method,dataset,metric,condition,seed,selection,protocol,value\n"
LINE = f"SA,scenes,ari_fg,,0,last,{PROTOCOL},0.5\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "begins with ''; expected method,dataset,metric"),
        (LINE, "expected method,dataset,metric"),
        (HEADER.replace(",value", ""), "expected method,dataset,metric"),
        (HEADER + LINE + "SA,scenes\n", "line 3 of {path} has 2 columns; expected 8"),
        (HEADER + LINE + "\n", "line 3 of {path} has 0 columns"),
        (HEADER + LINE.replace(",0,", ",1_0,"), "line 2 of {path} has the seed '1_0'; expected a number"),
        (HEADER + LINE.replace("0.5", "nan"), "line 2 of {path} has the value 'nan'; expected a number"),
        (HEADER + LINE.replace("0.5", " 0.5"), "has the value ' 0.5'"),
        (HEADER + LINE.replace("0.5", "1e999"), "is inf; leave such a row out"),
        (HEADER + LINE.replace("last", "first"), "line 2 of {path}: the selection is 'first'"),
        (HEADER + LINE.replace("; slots=5", ""), "line 2 of {path}: 'data=scenes"),
        (HEADER + 'SA,"sce\nnes",ari_fg,,0,last,x,0.5\n', "the dataset is 'sce"),
        (HEADER + 'SA,"scenes', "is no CSV"),
        (HEADER + LINE.replace("SA", "S\0A"), "line 2"),
        (b"\xff\xfe\x00", "cannot read {path}"),
    ],
)
def test_another_file_is_refused_in_a_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as error:
        read_rows(path)
    assert message.format(path=path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(InputError, match=r"cannot read .*name a CSV file of results"):
            read_rows(path)
