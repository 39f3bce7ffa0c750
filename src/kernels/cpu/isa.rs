//! The instruction sets that the CPU kernels are compiled for, which of them this machine has, and
//! the macro that runs a kernel compiled for one of them.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::amx;
#[cfg(target_arch = "x86_64")]
use super::simd::x86::{Avx2, Avx512};
use super::simd::{Lanes, Portable};

/// The instruction sets that the CPU kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// The baseline of the compiler's target.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512F/BW/VL.
    Avx512,
    /// AVX-512F/BW/VL with AVX512-BF16 and AVX-512-VNNI, which every CPU with the former has:
    /// products of bf16 weights round the other operand to bf16 too.
    Avx512Bf16,
    /// AVX512-BF16 with matrix tiles (AMX), for products of bf16 and int8 weights.
    Amx,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Isa; 5] = [
        Isa::Portable,
        Isa::Avx2,
        Isa::Avx512,
        Isa::Avx512Bf16,
        Isa::Amx,
    ];

    /// The name used by `ANKH3_CPU_ISA` and in provenance.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Amx => "amx",
        }
    }

    /// Whether this machine has these instructions.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => {
                IntegerIsa::Vnni.is_available() && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Bf16.is_available() && amx::is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Whether products of bf16 weights round the other operand to bf16 too.
    pub fn rounds_activations(self) -> bool {
        self >= Isa::Avx512Bf16
    }

    /// [`Lanes::TILE_WIDTH`] of the lanes of this instruction set.
    pub(super) fn tile_width(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Amx => Avx512::TILE_WIDTH,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::TILE_WIDTH,
            _ => Portable::TILE_WIDTH,
        }
    }

    /// The best instruction set of this machine.
    pub fn best() -> Isa {
        *Isa::ALL
            .iter()
            .rev()
            .find(|isa| isa.is_available())
            .expect("portable is always available")
    }

    /// The instruction set that `ANKH3_CPU_ISA` names, or the best one.
    ///
    /// # Errors
    /// Where the name is unknown, or this CPU lacks the instruction set.
    pub fn from_env() -> Result<Isa, String> {
        let Ok(name) = std::env::var("ANKH3_CPU_ISA") else {
            return Ok(Isa::best());
        };
        let known = Isa::ALL.map(Isa::name).join(", ");
        let isa = Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| format!("ANKH3_CPU_ISA={name} is none of {known}"))?;
        if isa.is_available() {
            Ok(isa)
        } else {
            Err(format!(
                "ANKH3_CPU_ISA={name}, but this CPU lacks it; its best is {}",
                Isa::best().name()
            ))
        }
    }

    /// The instruction set of this process: [`Isa::from_env`], decided once. An invalid name falls
    /// back to the best (the command line reports the name as an error before any kernel runs).
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| Isa::from_env().unwrap_or_else(|_| Isa::best()))
    }
}

/// The instruction sets that multiply integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerIsa {
    /// The baseline of the compiler's target.
    Portable,
    /// AVX2.
    Avx2,
    /// AVX-512BW.
    Avx512,
    /// AVX-512-VNNI.
    Vnni,
    /// Matrix tiles (AMX).
    Amx,
}

impl IntegerIsa {
    /// Every instruction set, slowest first.
    pub const ALL: [IntegerIsa; 5] = [
        IntegerIsa::Portable,
        IntegerIsa::Avx2,
        IntegerIsa::Avx512,
        IntegerIsa::Vnni,
        IntegerIsa::Amx,
    ];

    /// The best instruction set that `isa` and this machine allow.
    pub fn of(isa: Isa) -> Self {
        if isa < Isa::Avx2 {
            IntegerIsa::Portable
        } else if isa < Isa::Avx512 {
            IntegerIsa::Avx2
        } else if isa == Isa::Amx && IntegerIsa::Amx.is_available() {
            IntegerIsa::Amx
        } else if IntegerIsa::Vnni.is_available() {
            IntegerIsa::Vnni
        } else {
            IntegerIsa::Avx512
        }
    }

    /// Whether this machine has these instructions.
    pub fn is_available(self) -> bool {
        match self {
            IntegerIsa::Portable => true,
            IntegerIsa::Avx2 => Isa::Avx2.is_available(),
            IntegerIsa::Avx512 => Isa::Avx512.is_available(),
            #[cfg(target_arch = "x86_64")]
            IntegerIsa::Vnni => {
                Isa::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            IntegerIsa::Amx => Isa::Amx.is_available(),
            #[cfg(not(target_arch = "x86_64"))]
            IntegerIsa::Vnni => false,
        }
    }
}

/// `with_isa!(isa, kernel(name: Type, …)(argument, …))` runs `kernel::<V>(argument, …)`, a generic
/// over [`Lanes`], compiled for the instruction set `isa`.
///
/// A kernel with a second type parameter is written `kernel<T: Bound>(…)`. Kernels must be
/// `#[inline(always)]`, so that they are compiled inside the function that enables the
/// instructions.
macro_rules! with_isa {
    ($isa:expr, $kernel:ident $(<$of:ident: $bound:path>)? ($($name:ident: $kind:ty),* $(,)?)($($argument:expr),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
        unsafe fn avx512$(<$of: $bound>)?($($name: $kind),*) {
            // SAFETY: the features are enabled here; the rest is the caller's promise.
            unsafe { $kernel::<$crate::kernels::cpu::simd::x86::Avx512 $(, $of)?>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2$(<$of: $bound>)?($($name: $kind),*) {
            // SAFETY: as above.
            unsafe { $kernel::<$crate::kernels::cpu::simd::x86::Avx2 $(, $of)?>($($name),*) }
        }
        match $isa {
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::cpu::isa::Isa::Avx512 | $crate::kernels::cpu::isa::Isa::Avx512Bf16 | $crate::kernels::cpu::isa::Isa::Amx => avx512($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::kernels::cpu::isa::Isa::Avx2 => avx2($($argument),*),
            _ => $kernel::<$crate::kernels::cpu::simd::Portable $(, $of)?>($($argument),*),
        }
    }};
}
pub(crate) use with_isa;
