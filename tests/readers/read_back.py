"""Reads embedding files with the libraries their users have and compares them with what was written.

    read_back.py FORMAT FILE EXPECTED [FILE EXPECTED …]

EXPECTED is JSON: {"dtype": "f32" | "f16" | "bf16", "metadata": {…}, "columns": [{name, width, rows}],
"records": [{"id", "length", "values": [[…] a column]}]}, where values are flat, row-major and
already rounded to the dtype. Exits with 0 when every value is the same to the bit.
"""

import csv
import json
import sys
from urllib.parse import unquote

import numpy as np


def same(found, expected, what):
    found = np.asarray(found)
    assert found.dtype == expected.dtype, f"{what}: type {found.dtype}, not {expected.dtype}"
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    assert found.tobytes() == expected.tobytes(), f"{what}: values differ"


def keyed(records, columns):
    """(key, expected array) for formats with one array a protein and column."""
    for record in records:
        for column in columns:
            name = column["name"]
            key = record["id"] if len(columns) == 1 else f"{record['id']}/{name}"
            yield key, record["arrays"][name]


def npz(path, expected):
    import zipfile

    with np.load(path, allow_pickle=False) as archive:
        keys = list(archive.keys())
        wanted = list(keyed(expected["records"], expected["columns"]))
        assert [unquote(key) for key in keys] == [key for key, _ in wanted], keys
        for key, (_, array) in zip(keys, wanted, strict=True):
            assert not any(part.strip(".") == "" for part in key.split("/")), key
            same(archive[key], array, key)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.comment)["metadata"] == expected["metadata"]
        assert {entry.date_time for entry in archive.infolist()} <= {(1980, 1, 1, 0, 0, 0)}


def npy(path, expected):
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    with open(path + ".index.tsv", newline="") as file:
        index = list(csv.DictReader(file, delimiter="\t"))
    assert [row["id"] for row in index] == [record["id"] for record in expected["records"]]
    (column,) = expected["columns"]
    for row, record in zip(index, expected["records"], strict=True):
        rows = array[int(row["start"]) : int(row["start"]) + int(row["rows"])]
        wanted = record["arrays"][column["name"]]
        same(np.array(rows), wanted.reshape(-1, column["width"]), record["id"])
        assert int(row["length"]) == record["length"]
    assert len(array) == sum(int(row["rows"]) for row in index)
    manifest(path, expected)


def h5(path, expected):
    import h5py

    with h5py.File(path) as file:
        assert json.loads(file.attrs["ankh3"])["metadata"] == expected["metadata"]
        for key, value in expected["metadata"].items():
            found = file.attrs[key]
            assert found == value if isinstance(value, str) else json.loads(found) == value
        for column in expected["columns"]:
            group = file if len(expected["columns"]) == 1 else file[column["name"]]
            assert [unquote(name) for name in group] == [r["id"] for r in expected["records"]]
            for name, record in zip(group, expected["records"], strict=True):
                dataset = group[name]
                same(dataset[:], record["arrays"][column["name"]], record["id"])
                assert dataset.attrs["original_id"] == record["id"], dataset.attrs["original_id"]
                assert dataset.attrs["residues"] == record["length"]


def safetensors(path, expected):
    from safetensors import safe_open

    wanted = dict(keyed(expected["records"], expected["columns"]))
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()["ankh3"])["metadata"] == expected["metadata"]
        assert set(file.keys()) == set(wanted)
        for key, array in wanted.items():
            if expected["dtype"] != "bf16":
                same(file.get_tensor(key), array, key)
    if expected["dtype"] == "bf16":
        bf16(path, wanted)


def bf16(path, wanted):
    """NumPy has no bf16: look at the bytes that the reference implementation hands out."""
    from safetensors import deserialize

    with open(path, "rb") as file:
        tensors = dict(deserialize(file.read()))
    for key, array in wanted.items():
        tensor = tensors[key]
        assert tensor["dtype"] == "BF16" and tuple(tensor["shape"]) == array.shape, tensor["dtype"]
        high = np.frombuffer(bytes(tensor["data"]), dtype="<u2").astype("<u4") << 16
        same(high.view("<f4").reshape(array.shape), array, key)


def nested(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def table(rows, expected):
    """Compares rows of a data frame with one row a protein."""
    assert [row["id"] for row in rows] == [record["id"] for record in expected["records"]]
    for row, record in zip(rows, expected["records"], strict=True):
        assert row["length"] == record["length"]
        for name, wanted in record["arrays"].items():
            same(np.array(nested(row[name]), dtype=wanted.dtype), wanted, record["id"])


def parquet(path, expected):
    import polars
    import pyarrow.parquet

    found = pyarrow.parquet.read_table(path)
    assert json.loads(found.schema.metadata[b"ankh3"])["metadata"] == expected["metadata"]
    arrow_types(found.schema, expected)
    table(found.to_pylist(), expected)
    table(polars.read_parquet(path).to_dicts(), expected)
    file = pyarrow.parquet.ParquetFile(path)
    for group in range(file.num_row_groups):
        assert file.metadata.row_group(group).column(2).compression == "ZSTD"


def arrow(path, expected):
    import polars
    import pyarrow

    with pyarrow.ipc.open_stream(path) as stream:
        found = stream.read_all()
    found.validate(full=True)
    begun = {k: v for k, v in expected["metadata"].items() if k not in ("input", "written")}
    assert json.loads(found.schema.metadata[b"ankh3"])["metadata"] == begun
    manifest(path, expected)
    arrow_types(found.schema, expected)
    table(found.to_pylist(), expected)
    table(polars.read_ipc_stream(path).to_dicts(), expected)


def arrow_types(schema, expected):
    import pyarrow

    value = {"f32": pyarrow.float32(), "f16": pyarrow.float16()}[expected["dtype"]]
    assert schema.field("id").type == pyarrow.string()
    assert schema.field("length").type == pyarrow.int64()
    for column in expected["columns"]:
        found = schema.field(column["name"]).type
        if column["rows"] == "per_residue":
            found = found.value_type
        assert pyarrow.types.is_fixed_size_list(found) and found.list_size == column["width"], found
        assert found.value_type == value, found


def tsv(path, expected):
    import polars

    frame = polars.read_csv(
        path, separator="\t", schema_overrides={"id": polars.String}, infer_schema_length=None
    )
    per_residue = any(column["rows"] == "per_residue" for column in expected["columns"])
    assert ("position" in frame.columns) == per_residue
    start = 0
    for record in expected["records"]:
        rows = record["length"] if per_residue else 1
        part = frame[start : start + rows]
        start += rows
        assert part["id"].to_list() == [record["id"]] * rows, part["id"]
        assert part["length"].to_list() == [record["length"]] * rows
        if per_residue:
            assert part["position"].to_list() == list(range(1, rows + 1))
        for column in expected["columns"]:
            wanted = record["arrays"][column["name"]].reshape(rows, column["width"])
            names = [f"{column['name']}.{value}" for value in range(column["width"])]
            same(part.select(names).to_numpy().astype(wanted.dtype), wanted, record["id"])
    assert start == len(frame)
    manifest(path, expected)


def jsonl(path, expected):
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    table(rows, expected)
    assert all(list(row)[:2] == ["id", "length"] for row in rows)
    manifest(path, expected)


def manifest(path, expected):
    with open(path + ".json", encoding="utf-8") as file:
        found = json.load(file)
    assert found["metadata"] == expected["metadata"] and found["columns"] == expected["columns"]


def load(path):
    """What was written, its values as arrays."""
    with open(path, encoding="utf-8") as file:
        expected = json.load(file)
    dtype = "<f2" if expected["dtype"] == "f16" else "<f4"
    for record in expected["records"]:
        record["arrays"] = {}
        for column, values in zip(expected["columns"], record["values"], strict=True):
            rows = [record["length"]] if column["rows"] == "per_residue" else []
            shape = [*rows, column["width"]]
            record["arrays"][column["name"]] = np.array(values, dtype=dtype).reshape(shape)
    return expected


def main():
    name, *paths = sys.argv[1:]
    readers = [npz, npy, h5, safetensors, parquet, arrow, tsv, jsonl]
    read = {reader.__name__: reader for reader in readers}[name]
    for path, expected_path in zip(paths[::2], paths[1::2], strict=True):
        expected = load(expected_path)
        print(f"{name} {expected['dtype']} {expected['columns']}", flush=True)
        read(path, expected)


if __name__ == "__main__":
    main()
