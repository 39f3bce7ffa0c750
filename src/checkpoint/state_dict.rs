//! The state dict in a pickle: the names of its tensors, and the place of their values.
//!
//! A pickle is a program for a stack machine. This machine knows the opcodes and the calls that
//! build a dictionary of tensors; any other opcode or call is an error, so nothing is executed and
//! no tensor is passed over. Values refer to each other by number and texts are slices of the
//! pickle: a value that is used many times is stored once, and nothing here recurses. The number of
//! values is bounded.

mod bytes;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use self::bytes::{PickleBytes, signed};
use crate::shown::shown;

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
    bytes: PickleBytes<'a>,
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
        bytes: PickleBytes::new(pickle),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        lists: Vec::new(),
        arrays: Vec::new(),
        tensors: Vec::new(),
        budget: MAX_VALUES,
    };
    let root = loop {
        let position = pickle.len() - machine.bytes.len();
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
        match self.bytes.byte()? {
            b'.' => return self.pop().map(Some),
            // Protocol and frame sizes.
            0x80 => self.bytes.skip(1)?,
            0x95 => self.bytes.skip(8)?,
            b'(' => {
                self.spend(1)?;
                self.marks.push(self.stack.len());
            }
            b'N' | 0x88 | 0x89 => self.push(Value::Plain)?,
            b'G' => {
                self.bytes.skip(8)?;
                self.push(Value::Plain)?;
            }
            b'K' => self.integer(1)?,
            b'M' => self.integer(2)?,
            b'J' => {
                let bytes = self.bytes.take(4)?;
                self.push(Value::Integer(signed(bytes)?))?;
            }
            0x8a => {
                let length = self.bytes.length(1)?;
                let bytes = self.bytes.take(length)?;
                self.push(Value::Integer(signed(bytes)?))?;
            }
            b'U' | 0x8c => self.text(1)?,
            b'T' | b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            b'c' => {
                let (module, name) = (self.bytes.line()?, self.bytes.line()?);
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
        let number = self.bytes.length(width)?;
        self.push(Value::Integer(number as i64))
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let text = self.bytes.text(width)?;
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
            width => self.bytes.length(width)?,
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
        let key = self.bytes.length(width)?;
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
                shown(module),
                shown(name)
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
                    return Err(format!("two tensors are called `{}`", shown(name)));
                }
                Ok((*name, self.tensors[*tensor].clone()))
            }
            [Value::Text(name), _] => Err(format!("its entry `{}` is no tensor", shown(name))),
            _ => Err("an entry without a name".to_owned()),
        };
        pairs.map(tensor).collect()
    }
}
