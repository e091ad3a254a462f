from __future__ import annotations

import copy
import json
import pickle

import pytest

from imfbench.metrics.signature import Signature, SignatureError, differences, parse


def test_written_form_and_way_back() -> None:
    signature = Signature(
        "wer",
        1,
        asr="faster-whisper-base@d01c3014",
        compute="int8",
        beam=5,
        temperature=0,
        fallback=False,
        agg="corpus",
    )
    assert signature == (
        "wer-v1|asr:faster-whisper-base@d01c3014|compute:int8|beam:5|temperature:0|fallback:no|agg:corpus"
    )
    assert parse(signature) == (
        "wer",
        1,
        {
            "asr": "faster-whisper-base@d01c3014",
            "compute": "int8",
            "beam": "5",
            "temperature": "0",
            "fallback": "no",
            "agg": "corpus",
        },
    )
    assert (signature.metric, signature.version, signature.parts["beam"]) == ("wer", 1, "5")


def test_a_signature_is_a_string_for_all_who_store_it() -> None:
    signature = Signature("sim", 2, model="resemblyzer:0.1.4")
    assert json.loads(json.dumps({"sim": signature})) == {"sim": "sim-v2|model:resemblyzer:0.1.4"}
    assert {signature: 1}["sim-v2|model:resemblyzer:0.1.4"] == 1
    for twin in (copy.deepcopy(signature), pickle.loads(pickle.dumps(signature))):
        assert type(twin) is str
        assert twin == signature
    assert signature.parts == {"model": "resemblyzer:0.1.4"}, "a value may hold a colon"


def test_differences_name_what_keeps_two_figures_apart() -> None:
    base = Signature("wer", 1, asr="whisper-base", beam=5)
    assert differences(base, str(base)) == {}
    assert differences(base, Signature("wer", 2, asr="whisper-large-v3", norm="whisper-en")) == {
        "version": ("1", "2"),
        "asr": ("whisper-base", "whisper-large-v3"),
        "beam": ("5", None),
        "norm": (None, "whisper-en"),
    }
    assert differences(Signature("mos", 1), Signature("utmos", 1)) == {"metric": ("mos", "utmos")}


@pytest.mark.parametrize("part", ["", "two words", "a|b", "a\nb", None])
def test_a_value_that_could_not_be_read_back_is_refused(part: str) -> None:
    with pytest.raises(SignatureError, match="the part asr"):
        Signature("wer", 1, asr=part)


def test_names_that_could_not_be_read_back_are_refused() -> None:
    with pytest.raises(SignatureError, match="cannot head"):
        Signature("WER", 1)
    with pytest.raises(SignatureError, match="cannot head"):
        Signature("wer", -1)
    with pytest.raises(SignatureError, match="cannot name a part"):
        Signature("wer", 1, **{"a:b": 1})


@pytest.mark.parametrize("text", ["", "wer", "wer-v1|asr", "wer-v1|Asr:base", "wer-v1|a:1|a:2", "wer-v1|version:2"])
def test_a_text_that_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(SignatureError, match="is not a signature"):
        parse(text)
