//! The state dict in a pickle: the names of its tensors, and the place of their values.
//!
//! A pickle is a program for a stack machine. This machine knows the opcodes and the calls that
//! build a dictionary of tensors; any other opcode or call is an error, so nothing is executed and
//! no tensor is passed over. Values refer to each other by number and texts are slices of the
//! pickle: a value that is used many times is stored once, and nothing here recurses. The number of
//! values is bounded.

use std::collections::HashSet;

/// The largest size of a pickle in bytes. A model of 1000 tensors has about 200 kB.
const MAX_BYTES: usize = 16 << 20;
/// The largest number of values that a pickle may make. A tensor needs about 40.
const MAX_VALUES: usize = 1 << 19;
/// The largest number of dimensions of a tensor.
const MAX_RANK: usize = 8;
/// The largest length of a tensor's name in bytes.
const MAX_NAME: usize = 1024;

/// An array of numbers in a file of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StoredArray<'a> {
    /// PyTorch's class, such as `FloatStorage`.
    pub class: &'a str,
    /// The name of the file in the folder `data` of the archive.
    pub key: &'a str,
    /// Number of values.
    pub values: usize,
}

/// A view of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredTensor<'a> {
    pub array: StoredArray<'a>,
    /// The first value.
    pub offset: usize,
    pub shape: Vec<usize>,
    /// Strides in values.
    pub strides: Vec<usize>,
}

/// A value of the stack machine; numbers are places in the lists of [`Machine`].
#[derive(Clone, Copy)]
enum Value<'a> {
    /// None, a truth value or a float: no tensor's place depends on it.
    Plain,
    Integer(i64),
    Text(&'a str),
    Global(&'a str, &'a str),
    Sequence(usize),
    /// Keys and values in turn.
    Dictionary(usize),
    Array(usize),
    Tensor(usize),
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// Remembered values by their numbers, which PyTorch counts from 0.
    memo: Vec<Option<Value<'a>>>,
    lists: Vec<Vec<Value<'a>>>,
    arrays: Vec<StoredArray<'a>>,
    tensors: Vec<StoredTensor<'a>>,
    /// The values that may still be made.
    budget: usize,
}

/// The tensors of a pickled state dict by name, in the order of the pickle.
///
/// # Errors
/// A pickle that is damaged, or that is more than a dictionary of tensors.
pub(super) fn read(pickle: &[u8]) -> Result<Vec<(&str, StoredTensor<'_>)>, String> {
    if pickle.len() > MAX_BYTES {
        return Err(format!("{} bytes are too many", pickle.len()));
    }
    let mut machine = Machine {
        rest: pickle,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        lists: Vec::new(),
        arrays: Vec::new(),
        tensors: Vec::new(),
        budget: MAX_VALUES,
    };
    let root = loop {
        let position = pickle.len() - machine.rest.len();
        let step = machine.step();
        if let Some(root) = step.map_err(|message| format!("byte {position}: {message}"))? {
            break root;
        }
    };
    machine.named_tensors(root)
}

impl<'a> Machine<'a> {
    /// Executes one opcode; a value ends the pickle.
    fn step(&mut self) -> Result<Option<Value<'a>>, String> {
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            // Protocol and frame sizes.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
            }
            b'N' | 0x88 | 0x89 => self.push(Value::Plain)?,
            b'G' => {
                self.skip(8)?;
                self.push(Value::Plain)?;
            }
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let bytes = self.take(4)?;
                self.push(Value::Integer(signed(bytes)?))?;
            }
            0x8a => {
                let length = self.length(1)?;
                let bytes = self.take(length)?;
                self.push(Value::Integer(signed(bytes)?))?;
            }
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Value::Global(module, name))?;
            }
            0x93 => {
                let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                    return Err("a name is no text".to_owned());
                };
                self.push(Value::Global(module, name))?;
            }
            b']' | b')' => self.sequence(Vec::new())?,
            b't' => {
                let items = self.pop_mark()?;
                self.sequence(items)?;
            }
            count @ 0x85..=0x87 => {
                let mut items = (0x85..=count)
                    .map(|_| self.pop())
                    .collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                self.sequence(items)?;
            }
            b'}' => self.dictionary()?,
            b'a' => self.extend(1)?,
            b's' => self.extend(2)?,
            b'e' | b'u' => {
                let items = self.pop_mark()?;
                self.extend_by(items)?;
            }
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => self.remember(0)?,
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'Q' => self.array()?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => return Err(format!("opcode 0x{other:02x} is not part of a state dict")),
        }
        Ok(None)
    }
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or("the pickle ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn skip(&mut self, count: usize) -> Result<(), String> {
        self.take(count).map(|_| ())
    }

    /// An unsigned number of `width` bytes.
    fn length(&mut self, width: usize) -> Result<usize, String> {
        let bytes = self.take(width)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or("the pickle ends early")? + 1)?;
        as_text(&line[..line.len() - 1])
    }

    fn spend(&mut self, count: usize) -> Result<(), String> {
        let left = self.budget.checked_sub(count);
        self.budget = left.ok_or("it makes more values than any model needs")?;
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        self.spend(1)?;
        self.stack.push(value);
        Ok(())
    }

    /// The last value above the last mark.
    fn pop(&mut self) -> Result<Value<'a>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let value = (self.stack.len() > floor).then(|| self.stack.pop());
        value.flatten().ok_or("a value is missing".to_owned())
    }

    /// All values above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn integer(&mut self, width: usize) -> Result<(), String> {
        let number = self.length(width)?;
        self.push(Value::Integer(number as i64))
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let length = self.length(width)?;
        let text = as_text(self.take(length)?)?;
        self.push(Value::Text(text))
    }

    fn sequence(&mut self, items: Vec<Value<'a>>) -> Result<(), String> {
        self.lists.push(items);
        self.push(Value::Sequence(self.lists.len() - 1))
    }

    fn dictionary(&mut self) -> Result<(), String> {
        self.lists.push(Vec::new());
        self.push(Value::Dictionary(self.lists.len() - 1))
    }

    /// Adds the last `count` values to the list or dictionary below them.
    fn extend(&mut self, count: usize) -> Result<(), String> {
        let items = (0..count).map(|_| self.pop());
        let mut items = items.collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.extend_by(items)
    }

    fn extend_by(&mut self, mut items: Vec<Value<'a>>) -> Result<(), String> {
        let target = self.pop()?;
        match target {
            Value::Dictionary(list) if items.len().is_multiple_of(2) => {
                self.lists[list].append(&mut items);
            }
            Value::Sequence(list) => self.lists[list].append(&mut items),
            _ => return Err("values for no list".to_owned()),
        }
        self.stack.push(target);
        Ok(())
    }

    /// Remembers the last value under a number of `width` bytes; without a number, as the next one.
    fn remember(&mut self, width: usize) -> Result<(), String> {
        let key = match width {
            0 => self.memo.len(),
            width => self.length(width)?,
        };
        let value = *self.stack.last().ok_or("a value is missing")?;
        if key >= self.memo.len() {
            self.spend(key + 1 - self.memo.len())?;
            self.memo.resize(key + 1, None);
        }
        self.memo[key] = Some(value);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<(), String> {
        let key = self.length(width)?;
        let value = self.memo.get(key).copied().flatten();
        self.push(value.ok_or("a remembered value is missing")?)
    }

    /// A storage by its persistent id: `("storage", class, key, device, number of values)`.
    fn array(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let [
            Value::Text("storage"),
            Value::Global("torch", class),
            Value::Text(key),
            _,
            Value::Integer(values),
        ] = self.items(id)?[..]
        else {
            return Err("this reference is no storage of PyTorch".to_owned());
        };
        let values = usize::try_from(values).map_err(|_| "a storage of negative size")?;
        self.arrays.push(StoredArray { class, key, values });
        self.push(Value::Array(self.arrays.len() - 1))
    }

    /// A call: of an ordered dictionary, or of PyTorch's functions that make a tensor.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Global(module, name) = callee else {
            return Err("a call of something that is no function".to_owned());
        };
        let arguments = self.items(arguments)?;
        match (module, name, arguments) {
            ("collections", "OrderedDict", []) => self.dictionary(),
            ("torch._utils", "_rebuild_parameter", [Value::Tensor(tensor), ..]) => {
                let tensor = Value::Tensor(*tensor);
                self.push(tensor)
            }
            (
                "torch._utils",
                "_rebuild_tensor" | "_rebuild_tensor_v2",
                [
                    Value::Array(array),
                    Value::Integer(offset),
                    shape,
                    strides,
                    ..,
                ],
            ) => {
                let tensor = StoredTensor {
                    array: self.arrays[*array],
                    offset: usize::try_from(*offset).map_err(|_| "a negative offset")?,
                    shape: self.sizes(*shape)?,
                    strides: self.sizes(*strides)?,
                };
                self.tensors.push(tensor);
                self.push(Value::Tensor(self.tensors.len() - 1))
            }
            _ => Err(format!(
                "it calls `{}.{}`, which makes no tensor (nothing was executed)",
                shortened(module),
                shortened(name)
            )),
        }
    }

    /// Attributes of a dictionary: the versions of PyTorch's modules, which no tensor depends on.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.stack.last() {
            Some(Value::Dictionary(_)) => Ok(()),
            _ => Err("attributes of something that is no dictionary".to_owned()),
        }
    }

    fn items(&self, value: Value<'a>) -> Result<&[Value<'a>], String> {
        match value {
            Value::Sequence(list) => Ok(&self.lists[list]),
            _ => Err("a list is missing".to_owned()),
        }
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>, String> {
        let items = self.items(value)?;
        if items.len() > MAX_RANK {
            return Err(format!("a tensor of {} dimensions", items.len()));
        }
        let size = |item: &Value<'_>| match item {
            Value::Integer(size) => usize::try_from(*size).ok(),
            _ => None,
        };
        let sizes = items.iter().map(size).collect::<Option<Vec<_>>>();
        sizes.ok_or_else(|| "a size that is no number from 0".to_owned())
    }

    fn named_tensors(self, root: Value<'a>) -> Result<Vec<(&'a str, StoredTensor<'a>)>, String> {
        let Value::Dictionary(list) = root else {
            return Err("it is no dictionary of tensors".to_owned());
        };
        let mut names = HashSet::new();
        let pairs = self.lists[list].chunks_exact(2);
        let tensor = |pair: &[Value<'a>]| match pair {
            [Value::Text(name), Value::Tensor(tensor)] if name.len() <= MAX_NAME => {
                if !names.insert(*name) {
                    return Err(format!("two tensors are called `{}`", shortened(name)));
                }
                Ok((*name, self.tensors[*tensor].clone()))
            }
            [Value::Text(name), _] => Err(format!("its entry `{}` is no tensor", shortened(name))),
            _ => Err("an entry without a name".to_owned()),
        };
        pairs.map(tensor).collect()
    }
}

fn as_text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".to_owned())
}

/// A signed little-endian number of at most 8 bytes.
fn signed(bytes: &[u8]) -> Result<i64, String> {
    if bytes.len() > 8 {
        return Err("a number beyond 64 bits".to_owned());
    }
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Ok(i64::from_le_bytes(all))
}

/// The beginning of a text of the pickle, for a message.
fn shortened(text: &str) -> String {
    text.chars()
        .take(80)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
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
        let sizes =
            |sizes: &[i64]| tuple(&sizes.iter().map(|size| number(*size)).collect::<Vec<_>>());
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
}
