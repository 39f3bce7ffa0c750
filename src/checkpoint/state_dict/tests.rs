//! State dicts built opcode by opcode, sound and hostile.

use super::*;

fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

fn number(number: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &number.to_le_bytes()].concat()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(", items.concat().as_slice(), b"t"].concat()
}

fn storage(values: i64) -> Vec<u8> {
    let class = b"ctorch\nFloatStorage\n".to_vec();
    let id = [
        text("storage"),
        class,
        text("0"),
        text("cpu"),
        number(values),
    ];
    [tuple(&id), b"Q".to_vec()].concat()
}

fn tensor(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let sizes = |sizes: &[i64]| tuple(&sizes.iter().map(|size| number(*size)).collect::<Vec<_>>());
    let hooks = b"ccollections\nOrderedDict\n)R".to_vec();
    let arguments = [
        storage(4),
        number(offset),
        sizes(shape),
        sizes(strides),
        b"\x89".to_vec(),
        hooks,
    ];
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(),
        tuple(&arguments),
        b"R".to_vec(),
    ]
    .concat()
}

/// A dictionary as `torch.save` pickles it.
fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<_> = entries
        .iter()
        .flat_map(|(name, value)| [text(name), value.clone()])
        .collect();
    [b"\x80\x02}(".to_vec(), entries.concat(), b"u.".to_vec()].concat()
}

#[test]
fn tensors_keep_name_shape_and_place() {
    let pickle = dictionary(&[
        ("a", tensor(1, &[1, 3], &[3, 1])),
        ("b", tensor(0, &[], &[])),
    ]);
    let tensors = read(&pickle).unwrap();
    let (name, a) = &tensors[0];
    assert_eq!(
        (*name, a.offset, &a.shape[..], &a.strides[..]),
        ("a", 1, &[1, 3][..], &[3, 1][..])
    );
    assert_eq!(
        (a.array.class, a.array.key, a.array.values),
        ("FloatStorage", "0", 4)
    );
    assert_eq!(tensors[1].1.shape, [0_usize; 0]);
    let parameter = [
        b"ctorch._utils\n_rebuild_parameter\n".to_vec(),
        tuple(&[tensor(0, &[4], &[1])]),
        b"R".to_vec(),
    ];
    assert_eq!(
        read(&dictionary(&[("a", parameter.concat())]))
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn whatever_is_no_state_dict_is_an_error() {
    let one = |value: &[u8]| dictionary(&[("a", value.to_vec())]);
    let doubled: Vec<u8> = (0..100)
        .flat_map(|i| [b'h', i, b'h', i, 0x86, b'q', i + 1])
        .collect();
    let call = b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec();
    let cases: [(&str, Vec<u8>, &str); 29] = [
        ("empty", Vec::new(), "ends early"),
        ("no end", b"\x80\x02}".to_vec(), "ends early"),
        (
            "a system call",
            b"cposix\nsystem\nX\x01\0\0\0x\x85R.".to_vec(),
            "`posix.system`",
        ),
        (
            "a call inside",
            one(b"cbuiltins\neval\nX\x01\0\0\x001\x85R"),
            "`builtins.eval`",
        ),
        (
            "another opcode",
            b"(iposix\nsystem\n.".to_vec(),
            "opcode 0x69",
        ),
        ("objects", b")\x81.".to_vec(), "opcode 0x81"),
        (
            "doubling",
            [&b")q\0"[..], &doubled, b"."].concat(),
            "no dictionary",
        ),
        (
            "doubling inside",
            one(&[&b")q\0"[..], &doubled].concat()),
            "`a` is no tensor",
        ),
        (
            "deep tuples",
            [&b")"[..], &vec![0x85; 400_000], b"."].concat(),
            "no dictionary",
        ),
        (
            "endless tuples",
            [&b")"[..], &vec![0x85; MAX_VALUES]].concat(),
            "more values",
        ),
        ("endless marks", vec![b'('; MAX_VALUES + 1], "more values"),
        (
            "endless memory",
            b"Nr\xff\xff\xff\xff.".to_vec(),
            "more values",
        ),
        ("too large", vec![b'N'; MAX_BYTES + 1], "too many"),
        ("a list in itself", b"]q\0h\0a.".to_vec(), "no dictionary"),
        (
            "a dictionary in itself",
            b"}q\0X\x01\0\0\0ah\0s.".to_vec(),
            "`a` is no tensor",
        ),
        (
            "4 GiB of text",
            b"X\xff\xff\xff\xffabc.".to_vec(),
            "ends early",
        ),
        (
            "2^64 bytes of text",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.".to_vec(),
            "ends early",
        ),
        (
            "a number of 255 bytes",
            [&b"\x8a\xff"[..], &[255; 255], b"."].concat(),
            "64 bits",
        ),
        (
            "a text that is none",
            b"X\x02\0\0\0\xff\xfe.".to_vec(),
            "UTF-8",
        ),
        (
            "few arguments",
            one(&[&call[..], b")R"].concat()),
            "_rebuild_tensor_v2",
        ),
        (
            "a storage alone",
            one(&[call, tuple(&[storage(4)]), b"R".to_vec()].concat()),
            "_rebuild_tensor_v2",
        ),
        (
            "half a storage",
            one(b"(X\x07\0\0\0storaget\x51"),
            "no storage",
        ),
        ("a negative storage", one(&storage(-4)), "negative"),
        (
            "a negative offset",
            one(&tensor(-1, &[2], &[1])),
            "negative",
        ),
        ("a negative stride", one(&tensor(0, &[2], &[-1])), "from 0"),
        (
            "nine dimensions",
            one(&tensor(0, &[1; 9], &[1; 9])),
            "9 dimensions",
        ),
        (
            "a number among tensors",
            dictionary(&[("epoch", number(3))]),
            "`epoch` is no tensor",
        ),
        (
            "a name twice",
            dictionary(&[("a", tensor(0, &[1], &[1])), ("a", tensor(0, &[1], &[1]))]),
            "two tensors",
        ),
        ("values below a mark", b"N(.".to_vec(), "missing"),
    ];
    for (name, pickle, expected) in cases {
        let error = read(&pickle).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let long = "n".repeat(MAX_NAME + 1);
    let error = read(&dictionary(&[(&long, tensor(0, &[1], &[1]))])).unwrap_err();
    assert!(error.len() < 200, "{error}");
}

/// Every beginning of a pickle, and every byte changed, ends with an error or with tensors.
#[test]
fn damage_never_panics() {
    let whole = dictionary(&[
        ("a", tensor(1, &[1, 3], &[3, 1])),
        ("b", tensor(0, &[2], &[1])),
    ]);
    for end in 0..whole.len() {
        assert!(read(&whole[..end]).is_err(), "{end}");
    }
    for at in 0..whole.len() {
        for byte in 0..=255 {
            let mut changed = whole.clone();
            changed[at] = byte;
            let _ = read(&changed);
        }
    }
}
