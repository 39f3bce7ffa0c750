//! Matrix tiles of Intel's servers (AMX): eight registers of 16 rows × 64 bytes, and instructions
//! that multiply two of them.
//!
//! Four tiles hold [`SIDE`] × [`SIDE`] sums (drawn in [`super::layout`]). Each step over 64 bytes
//! of k reads two tiles of A and two tiles of B and multiplies every tile of A by every tile of B.
//! B is read as the packed weights lie: one row of a panel is one row of two tiles side by side.
//!
//! `tdpbf16ps` adds to every element the sum of the even products and the sum of the odd products
//! of its 32 values of k, rounded to nearest even with subnormals as zeros; `tdpbsud` multiplies
//! signed by unsigned bytes, exactly (Intel 64 Software Developer's Manual, volume 2). The chain of
//! sums of an element never depends on the other rows of its tile.
//!
//! The compiler's intrinsics for AMX are not stable, so the inner loop is a few lines of assembly.
//! The code around it is generic over [`TileUnit`], which the tests implement in plain Rust; the
//! machine's own tiles are checked when a process first asks for them ([`is_available`]).
#![expect(
    unsafe_code,
    reason = "assembly; each block says what it reads, writes and needs"
)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};
use std::sync::OnceLock;

use super::layout::{LANES, PANEL, Strided};

/// Rows and columns of a block of sums.
pub(super) const SIDE: usize = PANEL;
/// Rows of B, and four-byte groups of one row of A, in one step.
pub(super) const STEP: usize = LANES;

/// One row of zeros, which every row of a new block reads.
static ZEROS: [u32; SIDE] = [0; SIDE];

/// A block of zeros: every row is the same one.
#[inline(always)]
pub(super) fn zeros() -> Strided<*const u32> {
    Strided {
        start: ZEROS.as_ptr(),
        stride: 0,
    }
}

/// A panel of B: whole steps of [`STEP`] rows of [`SIDE`] pairs or groups, and a copy of the
/// remaining rows, padded with zeros.
pub(super) struct Right {
    b: *const u32,
    whole: usize,
    last: Option<[u32; STEP * SIDE]>,
}

impl Right {
    /// # Safety
    /// `b` holds `rows` rows, for as long as this lives.
    #[inline(always)]
    pub(super) unsafe fn new(b: *const u32, rows: usize) -> Self {
        let (whole, rest) = (rows / STEP, rows % STEP);
        let last = (rest > 0).then(|| {
            let mut last = [0; STEP * SIDE];
            // SAFETY: `rest` rows are left in B, and fewer than there is room for.
            unsafe {
                let left = b.add(whole * STEP * SIDE);
                std::ptr::copy_nonoverlapping(left, last.as_mut_ptr(), rest * SIDE);
            }
            last
        });
        Self { b, whole, last }
    }

    /// `to = from + a · b` by `multiply`, a method of [`TileUnit`]. Strides are in bytes. Rows of A
    /// are whole steps, zero beyond the rows of B.
    ///
    /// # Safety
    /// As for [`TileUnit`].
    #[inline(always)]
    pub(super) unsafe fn multiply(
        &self,
        multiply: unsafe fn(&TileBlock),
        from: Strided<*const u32>,
        a: Strided<*const u32>,
        to: Strided<*mut u32>,
    ) {
        let mut block = TileBlock {
            from,
            a,
            b: self.b,
            steps: self.whole,
            to,
        };
        // SAFETY: passed on from the caller; A holds a step for the last rows too.
        unsafe {
            if self.whole > 0 {
                multiply(&block);
                block.from = Strided {
                    start: to.start.cast_const(),
                    stride: to.stride,
                };
            }
            if let Some(last) = &self.last {
                block.a.start = block.a.start.add(self.whole * STEP);
                (block.b, block.steps) = (last.as_ptr(), 1);
                multiply(&block);
            }
        }
    }
}

/// `to = from + a · b`: [`SIDE`] × [`SIDE`] sums of four bytes. Strides are in bytes.
pub(super) struct TileBlock {
    pub from: Strided<*const u32>,
    /// [`SIDE`] rows of `steps` × 64 bytes.
    pub a: Strided<*const u32>,
    /// `steps` × [`STEP`] rows of [`SIDE`] pairs or groups.
    pub b: *const u32,
    /// At least 1.
    pub steps: usize,
    pub to: Strided<*mut u32>,
}

/// Instructions that multiply blocks.
///
/// # Safety
/// Methods may only run where the implementor's instructions are available; the pointers of a block
/// must be valid.
pub(super) unsafe trait TileUnit {
    /// Prepares this thread, which does nothing else until [`TileUnit::end`].
    unsafe fn begin();
    /// Restores the state of the thread.
    unsafe fn end();
    /// Multiplies pairs of bf16.
    unsafe fn multiply_bf16(block: &TileBlock);
    /// Multiplies groups of four bytes, A signed and B unsigned.
    unsafe fn multiply_int8(block: &TileBlock);
}

/// The AMX tiles of this machine.
pub(super) struct Tiles;

/// The operand of `ldtilecfg`: palette 1; bytes per row of each tile from offset 16, rows of each
/// tile from offset 48.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

static CONFIGURATION: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = 64;
        bytes[48 + tile] = 16;
        tile += 1;
    }
    Configuration(bytes)
};

/// Defines a function that multiplies a block with the instruction `$multiply`.
macro_rules! multiply {
    ($(#[$doc:meta])* $name:ident, $multiply:literal) => {
        $(#[$doc])*
        unsafe fn $name(block: &TileBlock) {
            // SAFETY: the caller's tiles are configured, and the pointers of the block are valid;
            // the compiler uses no tiles, and all eight are named.
            unsafe {
                asm!(
                    "tileloadd tmm0, [{from} + {from_stride}*1]",
                    "tileloadd tmm1, [{from} + {from_stride}*1 + 64]",
                    "tileloadd tmm2, [{below} + {from_stride}*1]",
                    "tileloadd tmm3, [{below} + {from_stride}*1 + 64]",
                    "2:",
                    "tileloadd tmm6, [{b} + {b_stride}*1]",
                    "tileloadd tmm4, [{a} + {a_stride}*1]",
                    "tileloadd tmm7, [{b} + {b_stride}*1 + 64]",
                    "tileloadd tmm5, [{a_below} + {a_stride}*1]",
                    concat!($multiply, " tmm0, tmm4, tmm6"),
                    concat!($multiply, " tmm1, tmm4, tmm7"),
                    concat!($multiply, " tmm2, tmm5, tmm6"),
                    concat!($multiply, " tmm3, tmm5, tmm7"),
                    "add {a}, 64",
                    "add {a_below}, 64",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{to} + {to_stride}*1], tmm0",
                    "tilestored [{to} + {to_stride}*1 + 64], tmm1",
                    "tilestored [{to_below} + {to_stride}*1], tmm2",
                    "tilestored [{to_below} + {to_stride}*1 + 64], tmm3",
                    from = in(reg) block.from.start,
                    below = in(reg) block.from.start.wrapping_byte_add(16 * block.from.stride),
                    from_stride = in(reg) block.from.stride,
                    a = inout(reg) block.a.start => _,
                    a_below = inout(reg) block.a.start.wrapping_byte_add(16 * block.a.stride) => _,
                    a_stride = in(reg) block.a.stride,
                    b = inout(reg) block.b => _,
                    b_stride = in(reg) 4 * SIDE,
                    steps = inout(reg) block.steps => _,
                    to = in(reg) block.to.start,
                    to_below = in(reg) block.to.start.wrapping_byte_add(16 * block.to.stride),
                    to_stride = in(reg) block.to.stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

multiply!(
    /// Products of bf16 pairs, added to f32 sums.
    multiply_bf16,
    "tdpbf16ps"
);
multiply!(
    /// Products of signed by unsigned bytes, added to i32 sums.
    multiply_int8,
    "tdpbsud"
);

// SAFETY: assembly for AMX, whose presence the trait's callers promise.
unsafe impl TileUnit for Tiles {
    unsafe fn begin() {
        // SAFETY: the system has been asked for tiles (`is_available`); the configuration is 64
        // bytes that the manual allows.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly));
        }
    }
    unsafe fn end() {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
    unsafe fn multiply_bf16(block: &TileBlock) {
        // SAFETY: passed on from the caller.
        unsafe { multiply_bf16(block) };
    }
    unsafe fn multiply_int8(block: &TileBlock) {
        // SAFETY: passed on from the caller.
        unsafe { multiply_int8(block) };
    }
}

/// Whether this machine has tiles for bf16 and bytes, the system lets this process use them, and
/// their results are right. Determined once.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    // SAFETY: evaluated last, when the tiles exist and are permitted.
    *AVAILABLE.get_or_init(|| has_tiles() && is_permitted() && unsafe { multiplies::<Tiles>() })
}

/// AMX-BF16, AMX-TILE and AMX-INT8: bits 22, 24 and 25 of leaf 7.
fn has_tiles() -> bool {
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __get_cpuid_max(0).0 >= 7 && __cpuid_count(7, 0).edx & BITS == BITS
}

/// Requests the tile registers, which Linux grants on request only.
fn is_permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
        const TILE_DATA: libc::c_ulong = 18;
        // SAFETY: a request that takes two numbers and changes no memory of ours.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Whether the products of a unit are right, on blocks of integers that every number type
/// represents exactly.
///
/// # Safety
/// As for [`TileUnit`].
pub(super) unsafe fn multiplies<U: TileUnit>() -> bool {
    let bf16 = |value: i32| (value as f32).to_bits() >> 16;
    let byte = |value: i32| u32::from(value as u8);
    // SAFETY: passed on from the caller.
    unsafe {
        U::begin();
        let right = is_right::<2>(U::multiply_bf16, bf16, |sum| (sum as f32).to_bits())
            && is_right::<4>(U::multiply_int8, byte, |sum| sum as u32);
        U::end();
        right
    }
}

/// Whether the products of one number type are right; `GROUP` values are four bytes.
unsafe fn is_right<const GROUP: usize>(
    multiply: unsafe fn(&TileBlock),
    value: impl Fn(i32) -> u32,
    sum: impl Fn(i32) -> u32,
) -> bool {
    const STEPS: usize = 2;
    let left = |row: usize, k: usize| (row * 7 + k * 5) as i32 % 9 - 4;
    let right = |k: usize, column: usize| (k * 3 + column * 11) as i32 % 80 * 3;
    let start = |row: usize, column: usize| row as i32 - 2 * column as i32;
    let pack = |values: [i32; GROUP]| {
        let place = |bits, v| bits >> (32 / GROUP) | value(v) << (32 - 32 / GROUP);
        values.into_iter().fold(0, place)
    };
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let (mut sums, mut expected) = (Vec::new(), Vec::new());
    for row in 0..SIDE {
        for i in 0..STEPS * STEP {
            a.push(pack(std::array::from_fn(|k| left(row, GROUP * i + k))));
            b.push(pack(std::array::from_fn(|k| right(GROUP * row + k, i))));
        }
        for column in 0..SIDE {
            let products = (0..GROUP * STEPS * STEP).map(|k| left(row, k) * right(k, column));
            sums.push(sum(start(row, column)));
            expected.push(sum(start(row, column) + products.sum::<i32>()));
        }
    }
    let to = sums.as_mut_ptr();
    // SAFETY: 32 rows of two steps, as many rows of B and 32 × 32 sums.
    unsafe {
        multiply(&TileBlock {
            from: Strided {
                start: to.cast_const(),
                stride: 4 * SIDE,
            },
            a: Strided {
                start: a.as_ptr(),
                stride: 4 * STEPS * STEP,
            },
            b: b.as_ptr(),
            steps: STEPS,
            to: Strided {
                start: to,
                stride: 4 * SIDE,
            },
        });
    }
    sums == expected
}
