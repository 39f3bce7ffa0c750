//! Compiles kernels with g++ and launches them on buffers of their exact size.
#![expect(
    unsafe_code,
    reason = "calls a library that this file compiles; the emulator checks every access of it"
)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex};

use ankh3::kernels::cuda::launch::{Address, Element, Launch};
use half::bf16;
use libloading::Library;

use crate::skip::{Lack, skip};

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels/cuda")
}

/// The text of a kernel's file.
pub fn source(file: &str) -> String {
    std::fs::read_to_string(source_folder().join(file)).unwrap()
}

/// Whether there is no g++; the running test is skipped then.
pub fn without_compiler() -> bool {
    static MISSING: LazyLock<bool> =
        LazyLock::new(|| Command::new("g++").arg("--version").output().is_err());
    if *MISSING {
        skip(Lack::Tool, "g++; on Debian or Ubuntu: apt-get install g++");
    }
    *MISSING
}

/// A library of kernels.
pub struct Emulator(Library);

type Buffer = unsafe extern "C" fn(*mut c_void, usize, *const c_char, c_int);
type Forget = unsafe extern "C" fn();
type Unwritten = unsafe extern "C" fn(*const c_void) -> usize;
type Run = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    usize,
    *mut *const c_void,
    *const usize,
    usize,
    *mut c_char,
    usize,
) -> c_int;

impl Emulator {
    /// The kernels of a file, compiled once.
    pub fn of(file: &str) -> &'static Emulator {
        static ALL: Mutex<Vec<(String, &'static Emulator)>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().unwrap();
        if let Some((_, emulator)) = all.iter().find(|(name, _)| name == file) {
            return emulator;
        }
        let emulator = Box::leak(Box::new(
            Self::compile(&source(file)).unwrap_or_else(|error| panic!("{file}: {error}")),
        ));
        all.push((file.to_owned(), emulator));
        emulator
    }

    /// Compiles this text as if it lay beside the kernels, and the sums that backward passes need
    /// with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        let text = &format!("{}\n{text}", source("sums.cu"));
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
        let mut hasher = DefaultHasher::new();
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let headers = ["device.cuh", "common.cuh", "attention.cuh"];
        let parts = headers.map(|header| read(source_folder().join(header)));
        (text, parts, read(tests.join("emulate.h"))).hash(&mut hasher);
        let name = format!("kernels-{:016x}", hasher.finish());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (code, library) = (
            folder.join(format!("{name}.cpp")),
            folder.join(format!("{name}.so")),
        );
        if !library.exists() {
            std::fs::write(&code, text).unwrap();
            let made = folder.join(format!("{name}.{}.so", std::process::id()));
            let output = Command::new("g++")
                .args([
                    "-std=c++17",
                    "-O1",
                    "-g",
                    "-fPIC",
                    "-shared",
                    "-ffp-contract=off",
                ])
                .args(["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"])
                // Libraries must not share the emulator's state, nor kernels of one name.
                .args(["-fvisibility=hidden", "-fno-gnu-unique"])
                .args(["-DANKH3_EMULATE", "-DEMULATE_MAIN", "-include", "emulate.h"])
                .arg("-I")
                .arg(tests)
                .arg("-I")
                .arg(source_folder())
                .arg("-o")
                .args([&made, &code])
                .output()
                .map_err(|error| format!("g++: {error}"))?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            std::fs::rename(made, &library).unwrap();
        }
        // SAFETY: what was just compiled from this repository's own sources; loading it registers
        // its kernels and does nothing else.
        let library = unsafe { Library::new(&library) }.map_err(|error| error.to_string())?;
        Ok(Self(library))
    }

    fn function<T: Copy>(&self, name: &str) -> T {
        // SAFETY: the types above are those of the functions in emulate.h.
        *unsafe { self.0.get::<T>(name) }.unwrap()
    }
}

/// Memory of one test: buffers and the launches on them.
pub struct Device {
    emulator: &'static Emulator,
    /// Sixteen bytes each, as a GPU aligns buffers at least.
    buffers: Vec<Vec<u128>>,
    places: Vec<(Address, usize, String)>,
}

impl Device {
    pub fn new(emulator: &'static Emulator) -> Self {
        emulator.function::<Forget>("emulate_forget").call();
        Self {
            emulator,
            buffers: Vec::new(),
            places: Vec::new(),
        }
    }

    fn place(&mut self, name: &str, bytes: &[u8], written: bool) -> Address {
        let mut buffer = vec![u128::MAX; bytes.len().div_ceil(16)];
        for (to, from) in buffer.iter_mut().zip(bytes.chunks(16)) {
            let mut value = to.to_le_bytes();
            value[..from.len()].copy_from_slice(from);
            *to = u128::from_le_bytes(value);
        }
        let address = buffer.as_mut_ptr();
        let c_name = CString::new(name).unwrap();
        let register: Buffer = self.emulator.function("emulate_buffer");
        // SAFETY: the buffer lives as long as the device, which is forgotten before the next
        // begins.
        unsafe {
            register(address.cast(), bytes.len(), c_name.as_ptr(), written.into());
        }
        self.buffers.push(buffer);
        let address = Address(address as u64);
        self.places.push((address, bytes.len(), name.to_owned()));
        address
    }

    /// A buffer with values, rounded to the element's type.
    pub fn values(&mut self, name: &str, element: Element, values: &[f32]) -> Address {
        let bytes: Vec<u8> = match element {
            Element::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Element::Bf16 => values
                .iter()
                .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                .collect(),
        };
        self.place(name, &bytes, true)
    }

    /// A buffer with whole numbers.
    pub fn ids<T: Copy + Into<i64>>(&mut self, name: &str, values: &[T]) -> Address {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|v| ((*v).into() as i32).to_le_bytes())
            .collect();
        self.place(name, &bytes, true)
    }

    /// A buffer that a kernel must fill.
    pub fn room(&mut self, name: &str, element: Element, count: usize) -> Address {
        self.place(name, &vec![0xff; count * element.size()], false)
    }

    /// Runs one launch.
    pub fn launch(&self, launch: &Launch) -> Result<(), String> {
        let name = CString::new(launch.kernel.as_str()).unwrap();
        let mut pointers: Vec<*const c_void> = launch
            .arguments
            .iter()
            .map(|argument| argument.as_ptr().cast())
            .collect();
        let sizes: Vec<usize> = launch
            .arguments
            .iter()
            .map(ankh3::kernels::cuda::launch::Argument::size)
            .collect();
        let mut message = vec![0_u8; 4096];
        let run: Run = self.emulator.function("emulate_launch");
        // SAFETY: all pointers live through the call; the emulator checks sizes and every access of
        // the kernel.
        let status = unsafe {
            run(
                name.as_ptr(),
                launch.grid.as_ptr(),
                launch.block.as_ptr(),
                launch.shared,
                pointers.as_mut_ptr(),
                sizes.as_ptr(),
                sizes.len(),
                message.as_mut_ptr().cast(),
                message.len(),
            )
        };
        let end = message.iter().position(|byte| *byte == 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&message[..end]).into_owned();
        if status == 0 { Ok(()) } else { Err(text) }
    }

    /// Runs launches that must succeed.
    pub fn run<'a>(&self, launches: impl IntoIterator<Item = &'a Launch>) {
        for launch in launches {
            self.launch(launch)
                .unwrap_or_else(|error| panic!("{error}\nin {launch:?}"));
        }
    }

    /// The values of a buffer, all of which must have been written.
    pub fn read(&self, address: Address, element: Element) -> Vec<f32> {
        self.try_read(address, element).unwrap()
    }

    /// The values of a buffer, or how much of it was never written.
    pub fn try_read(&self, address: Address, element: Element) -> Result<Vec<f32>, String> {
        let index = self.places.iter().position(|p| p.0 == address).unwrap();
        let (_, size, name) = &self.places[index];
        let unwritten: Unwritten = self.emulator.function("emulate_unwritten");
        // SAFETY: only looks the address up.
        let left = unsafe { unwritten(address.0 as *const c_void) };
        if left > 0 {
            return Err(format!("{name}: {left} of {size} bytes were never written"));
        }
        let bytes = self.buffers[index].iter().flat_map(|v| v.to_le_bytes());
        let bytes: Vec<u8> = bytes.take(*size).collect();
        Ok(match element {
            Element::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            Element::Bf16 => bytes
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32())
                .collect(),
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.emulator.function::<Forget>("emulate_forget").call();
    }
}

trait Call {
    fn call(self);
}
impl Call for Forget {
    fn call(self) {
        // SAFETY: takes nothing, forgets this thread's buffers.
        unsafe { self() }
    }
}
