//! The bytes of a pickle, taken from its beginning.

/// What is left of a pickle.
pub(super) struct PickleBytes<'a> {
    rest: &'a [u8],
}

impl<'a> PickleBytes<'a> {
    pub(super) fn new(pickle: &'a [u8]) -> Self {
        Self { rest: pickle }
    }

    /// Number of bytes that are left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or("the pickle ends early")?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), String> {
        self.take(count).map(|_| ())
    }

    /// An unsigned number of `width` bytes.
    pub(super) fn length(&mut self, width: usize) -> Result<usize, String> {
        let bytes = self.take(width)?.iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    pub(super) fn line(&mut self) -> Result<&'a str, String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or("the pickle ends early")? + 1)?;
        as_text(&line[..line.len() - 1])
    }

    /// A text after its length in `width` bytes.
    pub(super) fn text(&mut self, width: usize) -> Result<&'a str, String> {
        let length = self.length(width)?;
        as_text(self.take(length)?)
    }
}

fn as_text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".to_owned())
}

/// A signed little-endian number of at most 8 bytes.
pub(super) fn signed(bytes: &[u8]) -> Result<i64, String> {
    if bytes.len() > 8 {
        return Err("a number beyond 64 bits".to_owned());
    }
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Ok(i64::from_le_bytes(all))
}
