"""Strings as bytes, against Python's own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_nmt.data.text_bytes import binaries_of, bytes_of, rows_with


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
@given(texts=st.lists(st.text(max_size=5) | st.none()), cut=st.integers(0, 3), sought=st.sampled_from(b"a \xc3\xe2"))
@settings(deadline=None)
def test_bytes_are_those_of_the_texts(kind, texts, cut, sought):
    values = [text if text is None or kind != pa.binary() else text.encode() for text in texts]
    expected = [(text or "").encode() for text in texts[cut:]]
    for column in (pa.array(values, kind)[cut:], pa.chunked_array([values[:cut], values[cut:]], kind)[cut:]):
        line, starts = bytes_of(column)
        assert line.tobytes() == b"".join(expected)
        assert np.diff(starts).tolist() == list(map(len, expected))
        assert rows_with(line == sought, starts).tolist() == [sought in text for text in expected]
        assert binaries_of(line, starts).to_pylist() == expected
