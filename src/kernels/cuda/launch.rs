//! One launch of a kernel, as data.

/// An address in the memory of a device; 0 stands for a missing operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    /// The address of a missing operand.
    pub const NULL: Address = Address(0);

    /// The address `count` values further on.
    pub fn plus(self, count: usize, element: Element) -> Self {
        Self(self.0 + (count * element.size()) as u64)
    }
}

/// A number type that kernels read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Single precision.
    F32,
    /// bfloat16 in memory, f32 in registers.
    Bf16,
}

impl Element {
    /// Bytes per value.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }

    /// The suffix of the names of kernels for this type.
    pub fn suffix(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::Bf16 => "bf16",
        }
    }

    /// Values in the sixteen bytes that a thread moves at once.
    pub fn lanes(self) -> usize {
        16 / self.size()
    }
}

/// The bytes of one argument, as C lays them out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument(Vec<u64>, usize);

impl Argument {
    /// A structure without members yet.
    pub fn structure() -> Self {
        Self::default()
    }

    /// Appends eight bytes.
    ///
    /// # Panics
    /// After an odd number of four-byte members, where C would leave a gap.
    pub fn word(mut self, value: u64) -> Self {
        assert!(
            self.1.is_multiple_of(8),
            "eight-byte members come before four-byte ones"
        );
        self.0.push(value);
        self.1 += 8;
        self
    }

    /// Appends four bytes.
    pub fn half(mut self, value: u32) -> Self {
        if self.1.is_multiple_of(8) {
            self.0.push(u64::from(value));
        } else {
            *self.0.last_mut().expect("an odd number of halves") |= u64::from(value) << 32;
        }
        self.1 += 4;
        self
    }

    /// Appends a whole number of four bytes.
    pub fn int(self, value: usize) -> Self {
        self.half(i32::try_from(value).expect("sizes of a batch are below 2^31") as u32)
    }

    /// Appends an f32.
    pub fn float(self, value: f32) -> Self {
        self.half(value.to_bits())
    }

    /// Appends an address.
    pub fn address(self, value: Address) -> Self {
        self.word(value.0)
    }

    /// Pointer to the bytes, aligned to eight.
    pub fn as_ptr(&self) -> *const u64 {
        self.0.as_ptr()
    }

    /// Number of bytes.
    pub fn size(&self) -> usize {
        self.1
    }
}

/// One launch of a kernel, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name of the kernel in the `.cu` file.
    pub kernel: String,
    /// Number of blocks.
    pub grid: [u32; 3],
    /// Threads in a block.
    pub block: [u32; 3],
    /// Bytes of shared memory per block.
    pub shared: usize,
    /// Arguments in order.
    pub arguments: Vec<Argument>,
}

impl Launch {
    /// `kernel` for the type `element`, on `grid` blocks of `block` threads.
    pub fn of(kernel: &str, element: Element, grid: [usize; 2], block: [u32; 2]) -> Self {
        Self::new(&format!("{kernel}_{}", element.suffix()), grid, block)
    }

    /// `kernel` on `grid` blocks of `block` threads.
    pub fn new(kernel: &str, grid: [usize; 2], block: [u32; 2]) -> Self {
        let [x, y] =
            grid.map(|blocks| u32::try_from(blocks).expect("a batch has fewer than 2^32 rows"));
        Self {
            kernel: kernel.to_owned(),
            grid: [x, y, 1],
            block: [block[0], block[1], 1],
            shared: 0,
            arguments: Vec::new(),
        }
    }

    /// Sets the shared memory for arrays of these numbers of bytes, laid out as `SharedRoom` does.
    pub fn shared(mut self, arrays: &[usize]) -> Self {
        self.shared = arrays.iter().map(|bytes| bytes.next_multiple_of(16)).sum();
        self
    }

    /// Appends an argument.
    pub fn with(mut self, argument: Argument) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Appends addresses, one argument each.
    pub fn addresses<const N: usize>(self, addresses: [Address; N]) -> Self {
        addresses.into_iter().fold(self, |launch, address| {
            launch.with(Argument::structure().address(address))
        })
    }

    /// Appends whole numbers, one argument each.
    pub fn ints<const N: usize>(self, values: [usize; N]) -> Self {
        values.into_iter().fold(self, |launch, value| {
            launch.with(Argument::structure().int(value))
        })
    }

    /// Appends an f32.
    pub fn float(self, value: f32) -> Self {
        self.with(Argument::structure().float(value))
    }

    /// Whether there is nothing to do. A driver rejects a grid without blocks.
    pub fn is_empty(&self) -> bool {
        self.grid.contains(&0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_laid_out_as_in_c() {
        let argument = Argument::structure().word(7).int(1).float(1.0).int(3);
        assert_eq!(argument.size(), 20);
        let one = u64::from(1.0_f32.to_bits());
        assert_eq!(argument.0, [7, one << 32 | 1, 3]);
    }
}
