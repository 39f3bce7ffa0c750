//! Matrix tiles of Intel's servers (AMX): eight registers of 16 rows × 64 bytes, and instructions that multiply two of them.
//!
//! Four tiles hold [`SIDE`] × [`SIDE`] sums; each step over 64 bytes of k reads two tiles of A and two of B and multiplies each by each. B is read as the
//! packed weights lie: a panel's row of pairs of bf16, or of groups of bytes, is two rows of tiles side by side.
//!
//! `tdpbf16ps` adds, for every element, the sum of the even products of its 32 values of k and that of the odd ones, rounded to nearest even with
//! subnormals as zeros; `tdpbsud` multiplies signed by unsigned bytes, exactly (Intel 64 Software Developer's Manual, volume 2). An element's chain of
//! sums never depends on the other rows of its tile.
//!
//! The compiler's intrinsics for this are not stable: it is a few lines of assembly. All around them is generic over [`Unit`], of which tests have one in
//! plain Rust, and the tiles themselves are checked when a process first asks for them ([`is_available`]).
#![expect(
    unsafe_code,
    reason = "assembly; each block says what it reads, writes and needs"
)]

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, __get_cpuid_max};
use std::sync::OnceLock;

use super::packed_weight::PANEL;
use super::simd::LANES;

/// Rows, and columns, of a block of sums.
pub(super) const SIDE: usize = PANEL;
/// Rows of B, and four-byte groups of a row of A, multiplied in one step.
pub(super) const STEP: usize = LANES;

/// Where rows of four-byte values begin, and the bytes between them.
pub(super) type Rows<T> = (T, usize);

/// Sums of a block that begins at nothing: every row reads this one.
pub(super) static ZEROS: [u32; SIDE] = [0; SIDE];

/// A panel of B: steps of [`STEP`] rows of [`SIDE`] pairs or groups, and the rows that are left with zeros behind them.
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

    /// `to = from + a · b` by a unit's `multiply`; rows of A are whole steps, zero behind what B has.
    ///
    /// # Safety
    /// As [`Unit`].
    #[inline(always)]
    pub(super) unsafe fn multiply(
        &self,
        multiply: unsafe fn(&Block),
        from: Rows<*const u32>,
        a: Rows<*const u32>,
        to: Rows<*mut u32>,
    ) {
        let mut block = Block {
            from: from.0,
            from_stride: from.1,
            a: a.0,
            a_stride: a.1,
            b: self.b,
            steps: self.whole,
            to: to.0,
            to_stride: to.1,
        };
        // SAFETY: passed on from the caller; A holds a step for the last rows too.
        unsafe {
            if self.whole > 0 {
                multiply(&block);
                (block.from, block.from_stride) = (to.0, to.1);
            }
            if let Some(last) = &self.last {
                block.a = block.a.add(self.whole * STEP);
                (block.b, block.steps) = (last.as_ptr(), 1);
                multiply(&block);
            }
        }
    }
}

/// `to = from + a · b`: [`SIDE`] × [`SIDE`] sums of four bytes. Strides are in bytes, between rows.
pub(super) struct Block {
    pub from: *const u32,
    pub from_stride: usize,
    /// [`SIDE`] rows of `steps` × 64 bytes.
    pub a: *const u32,
    pub a_stride: usize,
    /// `steps` × [`STEP`] rows of [`SIDE`] pairs or groups.
    pub b: *const u32,
    /// At least 1.
    pub steps: usize,
    pub to: *mut u32,
    pub to_stride: usize,
}

/// What multiplies blocks.
///
/// # Safety
/// Methods may only run where the implementor's instructions are available; blocks lie where they say.
pub(super) unsafe trait Unit {
    /// Makes this thread ready; nothing else runs on it until [`Unit::end`].
    unsafe fn begin();
    /// Leaves the thread as it was.
    unsafe fn end();
    /// Pairs of bf16.
    unsafe fn multiply_bf16(block: &Block);
    /// Quads of bytes, A signed and B unsigned.
    unsafe fn multiply_int8(block: &Block);
}

/// The machine's own tiles.
pub(super) struct Tiles;

/// What `ldtilecfg` reads: palette 1; bytes a row of each tile at 16, rows at 48.
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

/// A function that multiplies a block by `$multiply`.
macro_rules! multiply {
    ($(#[$doc:meta])* $name:ident, $multiply:literal) => {
        $(#[$doc])*
        unsafe fn $name(block: &Block) {
            // SAFETY: the caller's tiles are configured, and the block lies where it says; the compiler uses no tiles, and all eight are named.
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
                    from = in(reg) block.from,
                    below = in(reg) block.from.wrapping_byte_add(16 * block.from_stride),
                    from_stride = in(reg) block.from_stride,
                    a = inout(reg) block.a => _,
                    a_below = inout(reg) block.a.wrapping_byte_add(16 * block.a_stride) => _,
                    a_stride = in(reg) block.a_stride,
                    b = inout(reg) block.b => _,
                    b_stride = in(reg) 4 * SIDE,
                    steps = inout(reg) block.steps => _,
                    to = in(reg) block.to,
                    to_below = in(reg) block.to.wrapping_byte_add(16 * block.to_stride),
                    to_stride = in(reg) block.to_stride,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

multiply!(
    /// Pairs of bf16 by f32 sums.
    multiply_bf16,
    "tdpbf16ps"
);
multiply!(
    /// Signed by unsigned bytes by i32 sums.
    multiply_int8,
    "tdpbsud"
);

// SAFETY: assembly for AMX, whose presence the trait's callers promise.
unsafe impl Unit for Tiles {
    unsafe fn begin() {
        // SAFETY: the system has been asked for tiles (`is_available`); the configuration is 64 bytes that the manual allows.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly));
        }
    }
    unsafe fn end() {
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
    unsafe fn multiply_bf16(block: &Block) {
        // SAFETY: passed on from the caller.
        unsafe { multiply_bf16(block) };
    }
    unsafe fn multiply_int8(block: &Block) {
        // SAFETY: passed on from the caller.
        unsafe { multiply_int8(block) };
    }
}

/// Whether this machine has tiles for bf16 and bytes, the system lets this process use them, and they compute what they should: found out once.
pub(super) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    // SAFETY: asked last, when the tiles are there and allowed.
    *AVAILABLE.get_or_init(|| has_tiles() && is_permitted() && unsafe { multiplies::<Tiles>() })
}

/// AMX-BF16, AMX-TILE and AMX-INT8: bits 22, 24 and 25 of leaf 7.
fn has_tiles() -> bool {
    const BITS: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __get_cpuid_max(0).0 >= 7 && __cpuid_count(7, 0).edx & BITS == BITS
}

/// Asks the system for the registers, which it gives to processes that ask only.
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

/// Whether a unit multiplies blocks of integers right, which every number type holds exactly.
///
/// # Safety
/// As [`Unit`].
pub(super) unsafe fn multiplies<U: Unit>() -> bool {
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

/// The same of one number type, `GROUP` values of which are four bytes.
unsafe fn is_right<const GROUP: usize>(
    multiply: unsafe fn(&Block),
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
        multiply(&Block {
            from: to,
            from_stride: 4 * SIDE,
            a: a.as_ptr(),
            a_stride: 4 * STEPS * STEP,
            b: b.as_ptr(),
            steps: STEPS,
            to,
            to_stride: 4 * SIDE,
        });
    }
    sums == expected
}
