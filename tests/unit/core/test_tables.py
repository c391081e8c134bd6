"""Tables in and out: FAULTS.md 2, 3, 4, 17."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermalyze.core.tables import check_keys, csv_text, key_problem, neutralise, read_table, restore, write_csv
from dermalyze.errors import DataError


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_marks_ends_and_delimiters(mark, end, delimiter):
    text = end.join(["image_id,label", "a,mel", "b,nv", ""]).replace(",", delimiter)
    table = read_table(mark + text.encode(), "m.csv")
    assert table.columns == ("image_id", "label")
    assert table.rows == [["a", "mel"], ["b", "nv"]]
    assert table.column("label") == ["mel", "nv"]


def test_nothing_is_guessed():
    table = read_table(b'id,age,x\n007,NA,"a, b"\n1e3,,NaN\n', "m.csv")
    assert table.rows == [["007", "NA", "a, b"], ["1e3", "", "NaN"]]


def test_a_quoted_line_end_keeps_the_line_numbers_right():
    table = read_table(b'id,note\na,"one\ntwo"\nb,x\n\nc,y\n', "m.csv")
    assert table.rows[0] == ["a", "one\ntwo"]
    assert table.lines == [3, 4, 6]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("image_id,label\r\na,mel".encode("utf-16"), r"m\.csv: is UTF-16, must be UTF-8"),
        ("image_id,label\r\na,mel".encode("utf-16-le"), r"m\.csv line 1: a NUL byte"),
        (b"image_id,label\na\0b,mel\n", r"m\.csv line 2: a NUL byte"),
        ("image_id,label\na,mél\n".encode("latin-1"), r"m\.csv line 2: byte 0xe9 is not UTF-8"),
        (b"image_id,label\na,mel\nb," + b"x" * 131_073 + b"\n", r"m\.csv line 3: field larger than field limit \(131072\)"),
        (b'image_id,label\na,"mel\nb,nv\n', r"m\.csv line 3: unexpected end of data"),
        (b"image_id,label\na,mel,extra\n", r"m\.csv line 2: 3 fields, the header has 2"),
        (b"image_id,label\na\n", r"m\.csv line 2: 1 fields, the header has 2"),
        (b"image_id,label,image_id\na,mel,b\n", r"m\.csv: columns \['image_id'\] are twice"),
        (b"", r"m\.csv: is empty"),
        (b"\n\n", r"m\.csv: is empty"),
    ],
)
def test_refusals_name_the_line(data, message):
    with pytest.raises(DataError, match=message) as caught:
        read_table(data, "m.csv")
    assert caught.value.exit_code == 3


def test_a_field_of_the_largest_length_is_read():
    assert len(read_table(b"a\n" + b"x" * 131_072 + b"\n", "m.csv").rows[0][0]) == 131_072


def test_columns_by_name_or_spelling():
    table = read_table(b"Image ID,dx,DX,sex\na,mel,nv,f\n", "m.csv")
    assert table.require(["image_id", "dx", "sex"]) == {"image_id": "Image ID", "dx": "dx", "sex": "sex"}
    assert table.find("Dx") is None  # two are alike
    with pytest.raises(
        DataError, match=r"columns \['lable', 'age'\] are missing; found \['Image ID', 'dx', 'DX', 'sex'\]; map it"
    ):
        table.require(["lable", "age"], "map it")


def test_a_nameless_index_column_gets_a_name():
    assert read_table(b",image_id\n0,a\n", "m.csv").columns == ("column_1", "image_id")


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "is empty"),
        ("a\0b", "control characters"),
        ("a\nb", "control characters"),
        ("a\u202eb", "control characters"),
        (" a", "spaces around"),
        ("a ", "spaces around"),
        ("x" * 256, "256 characters"),
    ],
)
def test_keys(key, problem):
    assert problem in key_problem(key)
    with pytest.raises(DataError, match=rf"m\.csv line 3: image_id .* {problem}.*\(1 such rows\)") as caught:
        check_keys(["good", key], [2, 3], "m.csv", "image_id")
    assert len(str(caught.value)) < 250


def test_good_keys():
    check_keys(["ISIC_1", "x" * 255, "Mädchen 7", "=1+1"], [2, 3, 4, 5], "m.csv", "image_id")
    check_keys(["", "L1"], [2, 3], "m.csv", "lesion_id", empty=True)


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x","y")', "+1", "-1+2", "-cmd|x", "@SUM", "\tx", "\rx"])
def test_formulas_are_neutralised(text, tmp_path):
    write_csv(tmp_path / "x.csv", ["image_id", "value"], [[text, 1.5]])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [["image_id", "value"], ["'" + text, "1.5"]]


@pytest.mark.parametrize("text", ["-1", "-1.5e-3", "-.5", "a=b", "'x", "", "ISIC_1"])
def test_what_is_no_formula_stays(text):
    assert neutralise(text) == text


@given(st.text())
def test_what_is_written_is_read_again(text):
    assert restore(neutralise(text)) == text or text.startswith("'")
    assert not neutralise(text).startswith(("=", "+", "@", "\t", "\r"))


def test_a_header_is_neutralised_and_missing_is_empty():
    assert csv_text(["=a"], [[None], [0], ["x,y"]]) == '\'=a\n""\n0\n"x,y"\n'
    assert next(csv.reader(io.StringIO(csv_text(["a"], [["x"]])))) == ["a"]
