from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermalyze.config.data import SplitSpec
from dermalyze.core.atomic import sha256_file
from dermalyze.core.run import Run
from dermalyze.data.grouping import groups, leaks
from dermalyze.data.splitting import assign, divide, read_division, read_part, require_no_leak
from dermalyze.errors import DataError, LeakError, UsageError
from dermalyze.stages.split import split

HAM_LESIONS = {"nv": 5403, "mel": 614, "bkl": 727, "bcc": 327, "akiec": 228, "vasc": 98, "df": 73}


def lesions(counts: dict[str, int], seed: int = 0, sizes: tuple[float, ...] = (0.74, 0.2, 0.05, 0.01)) -> pd.DataFrame:
    """One row an image: `counts` lesions a class with 1, 2, ... photographs each."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"L{label}{k}", label)
        for label, n in counts.items()
        for k in range(n)
        for _ in range(1 + rng.choice(len(sizes), p=sizes))
    ]
    frame = pd.DataFrame(rows, columns=["lesion_id", "label"])
    return frame.assign(image_id=[f"ISIC_{k:07}" for k in range(len(frame))])


@st.composite
def tangled(draw: st.DrawFn) -> tuple[pd.DataFrame, SplitSpec]:
    """Sets in which patients hold several lesions and classes."""
    n = draw(st.integers(1, 60))
    ids = st.one_of(st.none(), st.integers(0, 30).map(str))
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k:02}" for k in range(n)],
            "patient_id": draw(st.lists(ids, min_size=n, max_size=n)),
            "lesion_id": draw(st.lists(ids, min_size=n, max_size=n)),
            "label": draw(st.lists(st.sampled_from(["mel", "nv", "bcc"]), min_size=n, max_size=n)),
        }
    )
    three = {"train": 0.7, "val": 0.15, "test": 0.15}
    kwargs: dict[str, Any] = draw(
        st.sampled_from(
            [
                {},
                {"fractions": three},
                {"kind": "kfold", "folds": 3, "fold": 1},
                {"kind": "kfold", "fractions": three, "folds": 2},
            ]
        )
    )
    return frame, SplitSpec(seed=draw(st.integers(0, 3)), **kwargs)


@settings(max_examples=30, deadline=None)
@given(tangled(), st.randoms())
def test_whatever_the_set_a_split_holds_its_promises_or_is_refused(case: tuple[pd.DataFrame, SplitSpec], random: Any) -> None:
    frame, spec = case
    try:
        parts = assign(frame, spec)
    except DataError:
        return
    assert set(parts) == set(spec.fractions)
    assert parts.index.equals(frame.index)
    assert leaks(frame.assign(group=groups(frame)), parts) == []
    assert (pd.crosstab(frame["label"], parts) > 0).all(axis=None)
    order = list(range(len(frame)))
    random.shuffle(order)
    pd.testing.assert_series_equal(assign(frame.iloc[order], spec).sort_index(), parts)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(4, 12), min_size=2, max_size=4),
    st.integers(0, 9),
    st.fixed_dictionaries({"val": st.floats(0.02, 0.3), "cal": st.floats(0.02, 0.3), "test": st.floats(0.02, 0.3)}),
)
def test_lesions_of_one_class_are_never_refused_where_there_are_enough(
    counts: list[int], seed: int, small: dict[str, float]
) -> None:
    frame = lesions({f"c{k}": n for k, n in enumerate(counts)}, seed)
    parts = assign(frame, SplitSpec(fractions={"train": 1 - sum(small.values()), **small}, seed=seed))  # type: ignore[arg-type]
    assert (pd.crosstab(frame["label"], parts) > 0).all(axis=None)


def test_classes_and_sizes_come_out_as_asked_on_a_set_like_ham10000() -> None:
    frame = lesions(HAM_LESIONS)
    for fractions in ({"train": 0.65, "val": 0.1, "cal": 0.1, "test": 0.15}, {"train": 0.7, "val": 0.15, "test": 0.15}):
        asked = pd.Series(fractions)
        parts = assign(frame, SplitSpec(fractions=fractions))  # type: ignore[arg-type]
        got = pd.crosstab(frame["label"], parts)[asked.index]
        assert (parts.value_counts(normalize=True)[asked.index] - asked).abs().max() < 0.002
        first = frame.drop_duplicates("lesion_id")
        held = pd.crosstab(first["label"], parts[first.index])[asked.index]
        assert (held - np.outer(held.sum(axis=1), asked)).abs().max(axis=None) <= 2
        assert (got.div(got.sum(axis=1), axis=0) - asked).abs().max(axis=None) < 0.01


def test_large_lesions_spread_like_small_ones() -> None:
    frame = lesions({"nv": 800, "mel": 400})
    parts = assign(frame, SplitSpec())
    per_lesion = frame.groupby(parts)["lesion_id"].agg(lambda ids: len(ids) / ids.nunique())
    assert per_lesion.max() / per_lesion.min() < 1.02


def test_patients_with_several_classes_are_balanced_too() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 30, 400)
    share = rng.beta(0.5, 6, 400)
    frame = pd.DataFrame(
        [(f"p{p}", "mel" if rng.random() < share[p] else "nv") for p in range(400) for _ in range(sizes[p])],
        columns=["patient_id", "label"],
    )
    frame["image_id"] = [f"i{k}" for k in range(len(frame))]
    parts = assign(frame, SplitSpec())
    got = pd.crosstab(frame["label"], parts, normalize="index")[["train", "val", "cal", "test"]]
    assert (got - [0.65, 0.1, 0.1, 0.15]).abs().max(axis=None) < 0.015


def test_the_seed_decides_and_nothing_else() -> None:
    frame = lesions({"nv": 120, "mel": 40})
    one, again, two = (assign(frame, SplitSpec(seed=seed)) for seed in (1, 1, 2))
    assert one.equals(again)
    assert (one != two).mean() > 0.2


def test_k_folds_test_every_image_once_and_hold_every_class() -> None:
    frame = lesions({"nv": 60, "mel": 13, "df": 6})
    folds = [assign(frame, SplitSpec(kind="kfold", folds=5, fold=k)) for k in range(5)]
    assert (sum((parts == "test").astype(int) for parts in folds) == 1).all()
    for parts in folds:
        assert set(frame.loc[parts == "test", "label"]) == {"nv", "mel", "df"}
        left = parts[parts != "test"].value_counts(normalize=True)
        assert left["train"] == pytest.approx(0.65 / 0.85, abs=0.04)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (lesions({"nv": 9, "mel": 9}).iloc[:0], "no usable image; each split needs at least one group of at least 2 classes"),
        (lesions({"nv": 9}), "only one class, 'nv', on"),
        (lesions({"nv": 9}).iloc[:1], "only one class, 'nv', on 1 images; at least 2 classes are needed"),
        (
            lesions({"nv": 9, "mel": 3, "df": 2}),
            "4 splits: train, val, cal, test: 'df' has 2, 'mel' has 3, at least 4 of each class are needed",
        ),
    ],
)
def test_too_little_is_refused_with_the_minimum(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        assign(frame, SplitSpec())
    assert caught.value.exit_code == 3


def test_too_few_groups_for_folds_counts_what_the_rest_needs() -> None:
    with pytest.raises(DataError, match=r"5 folds with the splits .*'df' has 4, at least 5"):
        assign(lesions({"nv": 9, "df": 4}), SplitSpec(kind="kfold", folds=5))
    with pytest.raises(
        DataError, match=r"2 folds with the splits .*'df' has 5, at least 6"
    ):  # a fold of 3 leaves 2 for 3 parts
        assign(lesions({"nv": 9, "df": 5}), SplitSpec(kind="kfold", folds=2))
    assign(lesions({"nv": 9, "df": 6}), SplitSpec(kind="kfold", folds=2))


def test_groups_that_cannot_be_divided_are_refused_by_name() -> None:
    # Any two of four patients share a class that only three patients have, so three splits cannot be enough for all.
    trios = {"a": "123", "b": "124", "c": "134", "d": "234"}
    frame = pd.DataFrame([(label, p) for label, trio in trios.items() for p in trio], columns=["label", "patient_id"])
    frame["image_id"] = [f"i{k:02}" for k in range(len(frame))]
    thirds = SplitSpec(fractions={"train": 0.4, "val": 0.3, "test": 0.3})
    with pytest.raises(DataError, match=r"every class in every split: '\w+' lacks '[abcd]' \(3 groups, some with several"):
        assign(frame, thirds)
    assert set(assign(frame[frame["label"] == "a"].pipe(_doubled), thirds)) == {"train", "val", "test"}


def _doubled(frame: pd.DataFrame) -> pd.DataFrame:
    """A second class on the same patients."""
    other = frame.assign(label="z", image_id=frame["image_id"] + "z")
    return pd.concat([frame, other], ignore_index=True)


def test_labels_outside_the_classes_and_missing_labels_are_refused() -> None:
    frame = lesions({"nv": 9, "mel": 9})
    with pytest.raises(DataError, match="label 'mel' is not one of the classes nv, mell; did you mean 'mell'"):
        assign(frame, SplitSpec(), classes=["nv", "mell"])
    with pytest.raises(DataError, match="image ISIC_0000000 has no label"):
        assign(frame.assign(label=[None, *frame["label"][1:]]), SplitSpec())
    with pytest.raises(DataError, match="'df' has 0, at least 4"):
        assign(frame, SplitSpec(), classes=["nv", "mel", "df"])


# -- a set's own split ------------------------------------------------------------------------------------------------


def own(values: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {"image_id": [f"i{k:02}" for k in range(len(values))], "label": ["mel", "nv"] * (len(values) // 2), "split": values}
    )


def test_an_own_split_is_kept_and_its_words_are_read_aloud() -> None:
    division = divide(own([v for v in ("training", "Validation", "calib", "test") for _ in range(2)]), SplitSpec())
    assert division.parts.tolist() == [v for v in ("train", "val", "cal", "test") for _ in range(2)]
    assert division.kind == "own"
    assert division.asked is None
    assert division.notes == ("the data set's split column is kept; read Validation as val, calib as cal, training as train",)


def test_an_own_split_without_cal_stays_without_it() -> None:
    assert set(divide(own([v for v in ("train", "dev", "testing") for _ in range(2)]), SplitSpec()).parts) == {
        "train",
        "val",
        "test",
    }


def test_an_own_train_test_split_gives_up_train_images_only() -> None:
    frame = own(["train"] * 80 + ["test"] * 20)
    division = divide(frame, SplitSpec())
    assert (division.parts[80:] == "test").all()
    assert division.parts[:80].value_counts().to_dict() == pytest.approx({"train": 61, "val": 9.5, "cal": 9.5}, abs=1.5)
    assert "val and cal taken out of its train split" in division.notes[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["train", "trian", "test", "val"], "unknown value 'trian' on 1 images; allowed: train, .*; did you mean 'train'?"),
        (["train", None, "test", "val"], r"1 of 4 images have no value \(first: i01\)"),
        (["train", "train", "val", "val"], "no image in test; train and test are needed"),
        (["test"] * 4, "no image in train"),
        (["train", "train", "val", "test"], "class 'mel' has no image in test; every split needs every class"),
    ],
)
def test_an_own_split_that_makes_no_sense_is_refused(values: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        divide(own(values), SplitSpec())


# -- files ------------------------------------------------------------------------------------------------------------


def test_parts_read_back_in_manifest_order_with_their_group(prepared: Any) -> None:
    frame = lesions({"nv": 30, "mel": 12}).sample(frac=1, random_state=1)
    run, spec = prepared(frame)
    split(run, spec)
    rows = pd.concat([read_part(run, part) for part in ("train", "val", "cal", "test")])
    assert sorted(rows["image_id"]) == sorted(frame["image_id"])
    train = read_part(run, "train")
    assert train["image_id"].is_monotonic_increasing
    assert train["group"].tolist() == groups(frame.sort_values("image_id"))[frame["image_id"].isin(train["image_id"])].tolist()
    assert require_no_leak(run, None) is None
    assert require_no_leak(run, "not needed") is None


def test_a_part_that_is_not_there(prepared: Any) -> None:
    run, spec = prepared(
        lesions({"nv": 30, "mel": 12}), config={"split": {"fractions": {"train": 0.7, "val": 0.15, "test": 0.15}}}
    )
    with pytest.raises(UsageError, match=r"certificate.json is missing; run first: dermalyze split"):
        read_part(run, "train")
    split(run, spec)
    with pytest.raises(UsageError, match="no split 'cal'; allowed: train, val, test"):
        read_part(run, "cal")


def test_ids_that_a_spreadsheet_would_run_are_quoted_and_read_back(prepared: Any) -> None:
    frame = lesions({"nv": 20, "mel": 20})
    odd = ["=1+1", "+1", "-1", "@SUM(A1)", "'quoted", "NA", "a,b", 'say "x"']
    frame["image_id"] = [*odd, *frame["image_id"][len(odd) :]]
    run, spec = prepared(frame)
    split(run, spec)
    rows = pd.concat([read_part(run, part) for part in ("train", "val", "cal", "test")])
    assert set(odd) <= set(rows["image_id"])
    cells = "".join(run.split_path(part).read_text() for part in ("train", "val", "cal", "test")).split("\n")
    assert not [line for line in cells if line.startswith(("=", "+", "-", "@", '"='))]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def recertify(run: Run) -> None:
    """What a person would do who wants an edited split to look certified."""
    certificate = json.loads(run.certificate_path.read_text())
    certificate["files"] = {part: sha256_file(run.split_path(part)) for part in certificate["files"]}
    run.certificate_path.write_text(json.dumps(certificate))


def test_an_edited_split_is_refused_even_with_an_edited_certificate(prepared: Any) -> None:
    run, spec = prepared(lesions({"nv": 30, "mel": 12}))
    split(run, spec)
    line = run.split_path("test").read_text().splitlines()[1]
    edit(run.split_path("test"), line.split(",")[1], "bcc")
    with pytest.raises(DataError, match=r"test_split.csv is not the one that was certified"):
        require_no_leak(run, "please")
    recertify(run)
    with pytest.raises(DataError, match=r"test_split.csv: its images, labels or groups are not the manifest's"):
        read_part(run, "train")


def test_a_row_moved_by_hand_is_found_although_the_certificate_says_passed(prepared: Any) -> None:
    frame = lesions({"nv": 30, "mel": 12}, sizes=(0.0, 1.0))
    run, spec = prepared(frame)
    split(run, spec)
    header, first, *rest = run.split_path("test").read_text().splitlines(keepends=True)
    run.split_path("test").write_text("".join([header, *rest]))
    train = run.split_path("train").read_text().splitlines(keepends=True)
    run.split_path("train").write_text("".join([train[0], *sorted([*train[1:], first])]))
    recertify(run)
    assert len(leaks(*read_division(run))) == 1
    with pytest.raises(DataError, match="does not say what its split files show"):
        require_no_leak(run, None)


def test_a_row_dropped_doubled_or_lost_is_refused(prepared: Any) -> None:
    run, spec = prepared(lesions({"nv": 30, "mel": 12}))
    split(run, spec)
    whole = run.split_path("val").read_text()
    run.split_path("val").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    recertify(run)
    with pytest.raises(DataError, match=r"of the manifest is in no split"):
        read_division(run)
    run.split_path("val").write_text(whole + run.split_path("train").read_text().splitlines(keepends=True)[1])
    recertify(run)
    with pytest.raises(DataError, match="is in train too"):
        read_division(run)
    run.split_path("val").unlink()
    with pytest.raises(DataError, match=r"val_split.csv is missing"):
        read_division(run)


def test_an_own_split_that_leaks_needs_a_reason(prepared: Any) -> None:
    frame = lesions({"nv": 30, "mel": 12}, sizes=(0.0, 1.0)).assign(split=lambda f: ["train", "val", "test"] * (len(f) // 3))
    run, spec = prepared(frame)
    assert not split(run, spec).passed
    with pytest.raises(
        LeakError,
        match=r'group\(s\) with 84 images are in more than one split; first: lesion Lnv0 in .*--accept-leak "reason"',
    ):
        require_no_leak(run, None)
    for empty in ("", "  \n"):
        with pytest.raises(UsageError, match="--accept-leak needs a reason"):
            require_no_leak(run, empty)
    assert require_no_leak(run, "the published split,\nfor comparison") == "the published split, for comparison"
    assert LeakError.exit_code == 3


def test_a_manifest_edited_after_the_split_is_refused(prepared: Any) -> None:
    run, spec = prepared(lesions({"nv": 30, "mel": 12}))
    split(run, spec)
    data = bytearray(run.manifest_path.read_bytes())
    data[len(data) // 2] ^= 1
    run.manifest_path.write_bytes(bytes(data))
    for call in (lambda: read_part(run, "train"), lambda: require_no_leak(run, "x")):
        with pytest.raises(DataError, match=r"manifest\.parquet"):
            call()


def test_classes_edited_after_the_split_are_refused(prepared: Any) -> None:
    run, spec = prepared(lesions({"nv": 30, "mel": 12}))
    split(run, spec)
    summary = json.loads(run.summary_path.read_text())
    run.summary_path.write_text(json.dumps({**summary, "classes": ["nv", "bcc"]}))
    with pytest.raises(DataError, match="label 'mel' is not one of the classes nv, bcc"):
        read_part(run, "train")
