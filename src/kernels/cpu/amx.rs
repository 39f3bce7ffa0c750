//! Matrix tiles of Intel's servers (AMX): eight registers of 16 rows × 64 bytes, and instructions that multiply two of them.
//!
//! Four tiles hold [`SIDE`] × [`SIDE`] sums; each step over 64 bytes of k reads two tiles of A and two of B and multiplies each by each. B is read as the
//! packed weights lie: a panel's row of pairs of bf16, or of quads of bytes, is two rows of tiles side by side.
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

/// Rows, and columns, of a block of sums.
pub(super) const SIDE: usize = 32;
/// Rows of B, and four-byte groups of a row of A, multiplied in one step.
pub(super) const STEP: usize = 16;
const _: () = assert!(SIDE == PANEL);

/// Sums of a block that begins at nothing: every row reads this one ([`Block::from_stride`] is 0).
pub(super) static ZEROS: [u32; SIDE] = [0; SIDE];

/// `to = from + a · b`: [`SIDE`] × [`SIDE`] sums of four bytes. Strides are in bytes, between rows.
#[repr(C)]
pub(super) struct Block {
    pub from: *const u32,
    pub from_stride: usize,
    /// [`SIDE`] rows of `steps` × 64 bytes.
    pub a: *const u32,
    pub a_stride: usize,
    /// `steps` × [`STEP`] rows of [`SIDE`] pairs or quads.
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

/// Whether a unit multiplies a block of integers right, which every number type holds exactly.
///
/// # Safety
/// As [`Unit`].
pub(super) unsafe fn multiplies<U: Unit>() -> bool {
    const STEPS: usize = 2;
    let left = |row: usize, k: usize| (row * 7 + k * 5) as i32 % 9 - 4;
    let right = |k: usize, column: usize| (k * 3 + column * 11) as i32 % 80 * 3;
    let start = |row: usize, column: usize| row as i32 - 2 * column as i32;
    let byte = |value: i32| u32::from(value as u8);
    let bf16 = |value: i32| (value as f32).to_bits() >> 16;
    // Values side by side in four bytes, one value, one sum.
    let in_bf16: (usize, fn(i32) -> u32, fn(i32) -> u32) = (2, bf16, |sum| (sum as f32).to_bits());
    let in_int8: (usize, fn(i32) -> u32, fn(i32) -> u32) = (4, byte, |sum| sum as u32);
    [in_bf16, in_int8].into_iter().all(|(group, value, sum)| {
        let pack = |values: &dyn Fn(usize) -> i32| {
            (0..group).fold(0, |bits, i| bits | value(values(i)) << (32 / group * i))
        };
        let grid = |width: usize, cell: &dyn Fn(usize, usize) -> u32| -> Vec<u32> {
            (0..SIDE * width)
                .map(|i| cell(i / width, i % width))
                .collect()
        };
        let a = grid(STEPS * STEP, &|row, at| {
            pack(&|i| left(row, at * group + i))
        });
        let b = grid(SIDE, &|at, column| pack(&|i| right(at * group + i, column)));
        let mut sums = grid(SIDE, &|row, column| sum(start(row, column)));
        let to = sums.as_mut_ptr();
        let block = Block {
            from: to,
            from_stride: 4 * SIDE,
            a: a.as_ptr(),
            a_stride: 4 * STEPS * STEP,
            b: b.as_ptr(),
            steps: STEPS,
            to,
            to_stride: 4 * SIDE,
        };
        // SAFETY: 32 rows of two steps, as many rows of B, 32 × 32 sums.
        unsafe {
            U::begin();
            if group == 2 {
                U::multiply_bf16(&block);
            } else {
                U::multiply_int8(&block);
            }
            U::end();
        }
        let expected = grid(SIDE, &|row, column| {
            let products = (0..STEPS * STEP * group).map(|k| left(row, k) * right(k, column));
            sum(start(row, column) + products.sum::<i32>())
        });
        sums == expected
    })
}
