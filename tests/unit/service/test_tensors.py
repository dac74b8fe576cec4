"""Open Inference Protocol tensors: round trips, and a reason for every malformed request."""

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.problems import Problem
from service.tensors import DTYPES, decode_tensors, encode_tensor, split_body

NUMERIC = [np.dtype(code) for code in DTYPES.values()]
arrays = st.sampled_from(NUMERIC).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(max_dims=3, max_side=4),
        elements=hnp.from_dtype(dtype, allow_nan=False, allow_infinity=False),
    )
)
byte_arrays = st.lists(st.text(), min_size=1, max_size=5).map(
    lambda items: np.array([item.encode() for item in items], dtype=object)
)


@given(array=arrays | byte_arrays, binary=st.booleans())
@example(array=np.array([0, 2**63 + 1], dtype=np.uint64), binary=False)
def test_what_is_encoded_is_decoded(array, binary):
    described, raw = encode_tensor("x", array, binary)
    described = orjson.loads(orjson.dumps(described, option=orjson.OPT_SERIALIZE_NUMPY))
    decoded = decode_tensors([described], memoryview(raw))["x"]
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert (decoded == array).all()


def test_binary_tensors_lie_one_after_the_other():
    one, two = np.arange(3, dtype=np.int32), np.arange(2, dtype=np.float64)
    (a, raw_a), (b, raw_b) = encode_tensor("a", one, True), encode_tensor("b", two, True)
    decoded = decode_tensors([a, b], memoryview(raw_a + raw_b))
    assert decoded["a"].tolist() == one.tolist()
    assert decoded["b"].tolist() == two.tolist()


def test_nested_json_data_is_taken_as_flat():
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
    assert decode_tensors([tensor], memoryview(b""))["x"].tolist() == [[1, 2], [3, 4]]


def fp32(**changes):
    return [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | changes]


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (None, "/inputs"),
        ([], "/inputs"),
        ([7], "/inputs/0"),
        (fp32(name=""), "/inputs/0/name"),
        (fp32() + fp32(), "/inputs/1/name"),
        (fp32(datatype="FP8"), "/inputs/0/datatype"),
        (fp32(datatype={"FP32": 1}), "/inputs/0/datatype"),
        (fp32(shape=[3]), "/inputs/0/data"),
        (fp32(shape=[-1]), "/inputs/0/shape"),
        (fp32(shape=[True]), "/inputs/0/shape"),
        (fp32(shape=[1] * 9), "/inputs/0/shape"),
        (fp32(data=["a", "b"]), "/inputs/0/data"),
        (fp32(data=[[1], [2, 3]]), "/inputs/0/data"),
        (fp32(data=None), "/inputs/0/data"),
        (fp32(datatype="UINT8", data=[1, 256]), "/inputs/0/data"),
        (fp32(datatype="INT32", data=[1, 1.5]), "/inputs/0/data"),
        (fp32(datatype="BYTES", data=[1, 2]), "/inputs/0/data"),
        (fp32(parameters={"binary_data_size": 8}), "/inputs/0/data"),
    ],
)
def test_a_malformed_tensor_names_its_field(inputs, field):
    with pytest.raises(Problem) as caught:
        decode_tensors(inputs, memoryview(b""))
    assert caught.value.status == 400
    assert caught.value.errors[0].field == field


def binary(size, **changes):
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": size}}
    return [tensor | changes]


@pytest.mark.parametrize(
    ("inputs", "raw"),
    [
        (binary(8), b"1234"),  # cut off
        (binary(4), b"1234"),  # not the shape's size
        (binary(8), b"12345678" + b"rest"),
        (binary(3, datatype="BYTES", shape=[1]), b"\x01\x00\x00"),
        (binary(6, datatype="BYTES", shape=[1]), b"\x09\x00\x00\x00ab"),
        (binary(6, datatype="BYTES", shape=[2]), b"\x02\x00\x00\x00ab"),
        (binary(-1), b""),
        (binary("8"), b"12345678"),
    ],
)
def test_malformed_binary_is_refused(inputs, raw):
    with pytest.raises(Problem) as caught:
        decode_tensors(inputs, memoryview(raw))
    assert caught.value.status == 400


@pytest.mark.parametrize("header", ["0", "-1", "abc", "999", "1.5"])
def test_header_length_must_fit_the_body(header):
    with pytest.raises(Problem) as caught:
        split_body(b'{"inputs":[]}', header)
    assert caught.value.errors[0].field == "Inference-Header-Content-Length"


def test_binary_without_the_header_says_so():
    with pytest.raises(Problem, match="Inference-Header-Content-Length"):
        split_body(b'{"inputs":[]}\x00\x01', None)
