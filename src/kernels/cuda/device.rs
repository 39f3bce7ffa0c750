//! Launches on a GPU: the embedded kernels, loaded once a device; addresses of candle's storages; buffers; what the driver says of a device.
//!
//! All work of a device goes through candle's one stream of it, in order: a buffer may be dropped as soon as the launches that use it are queued.
#![expect(
    unsafe_code,
    reason = "calls the CUDA driver; each block says why it may"
)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use candle_core::cuda::cudarc::driver::sys::{
    self, CUdevice_attribute, CUfunction_attribute_enum, CUmemPool_attribute,
};
use candle_core::cuda::cudarc::driver::{
    CudaFunction, CudaModule, CudaSlice, DevicePtr, DeviceRepr, result,
};
use candle_core::cuda::cudarc::{cublas, cublaslt, curand, driver, nvrtc};
use candle_core::cuda::{CudaStorageSlice, DeviceId, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result};
use half::bf16;

use super::attention::{Placed, Tables};
use super::launch::{Address, Element, Launch};
use crate::kernels::attention::Segment;

/// Made by build.rs.
static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// Plans whose tables are kept on the device: those of a model's encoder and decoder, and of both their attentions, in the layers of one batch.
const KEPT_TABLES: usize = 4;

/// The kernels on one device.
struct Loaded {
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    tables: Mutex<Vec<Arc<Kept>>>,
}

struct Kept {
    segments: Arc<[Segment]>,
    tile: usize,
    tables: Tables,
    placed: Placed,
    _buffers: [CudaSlice<i32>; 3],
}

fn loaded(device: &CudaDevice) -> Result<Arc<Loaded>> {
    static ALL: Mutex<Vec<(DeviceId, Arc<Loaded>)>> = Mutex::new(Vec::new());
    let mut all = ALL.lock().expect("nothing panics while it is held");
    if let Some((_, loaded)) = all.iter().find(|(id, _)| *id == device.id()) {
        return Ok(loaded.clone());
    }
    let context = device.cuda_stream().context().clone();
    let image = nvrtc::Ptx::from_binary(KERNELS.to_vec());
    let loaded = Arc::new(Loaded {
        module: context.load_module(image).w()?,
        functions: Mutex::default(),
        tables: Mutex::default(),
    });
    all.push((device.id(), loaded.clone()));
    Ok(loaded)
}

impl Loaded {
    fn function(&self, name: &str) -> Result<CudaFunction> {
        let mut functions = self
            .functions
            .lock()
            .expect("nothing panics while it is held");
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(name).w()?;
        // Beyond 48 KiB a kernel has to ask.
        let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function
            .set_attribute(attribute, super::attention::MAX_SHARED as i32)
            .w()?;
        functions.insert(name.to_owned(), function.clone());
        Ok(function)
    }
}

/// A device and its kernels.
pub struct Gpu<'a> {
    device: &'a CudaDevice,
    loaded: Arc<Loaded>,
}

/// A tensor that a kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Its first value.
    pub address: Address,
    /// Its type.
    pub element: Element,
}

impl<'a> Gpu<'a> {
    /// `device` with the kernels on it.
    ///
    /// # Errors
    /// Where the driver does not take them.
    pub fn of(device: &'a CudaDevice) -> Result<Self> {
        Ok(Self {
            device,
            loaded: loaded(device)?,
        })
    }

    /// The values of a tensor, which may begin anywhere in its storage.
    ///
    /// # Errors
    /// Types that no kernel reads.
    pub fn input(&self, storage: &CudaStorage, layout: &Layout) -> Result<Input> {
        let (address, element) = match &storage.slice {
            CudaStorageSlice::F32(slice) => (self.address(slice), Element::F32),
            CudaStorageSlice::BF16(slice) => (self.address(slice), Element::Bf16),
            _ => candle_core::bail!("CUDA kernels compute in f32 and bf16"),
        };
        Ok(Input {
            address: address.plus(layout.start_offset(), element),
            element,
        })
    }

    /// The values of a contiguous tensor.
    ///
    /// # Errors
    /// Where it is not, or of another type.
    pub fn contiguous(&self, storage: &CudaStorage, layout: &Layout) -> Result<Input> {
        if !layout.is_contiguous() {
            candle_core::bail!("this kernel needs contiguous rows");
        }
        self.input(storage, layout)
    }

    /// The f32 values of a contiguous tensor.
    ///
    /// # Errors
    /// Where it is not.
    pub fn floats(&self, storage: &CudaStorage, layout: &Layout) -> Result<Address> {
        let input = self.contiguous(storage, layout)?;
        if input.element != Element::F32 {
            candle_core::bail!("this kernel needs f32 weights");
        }
        Ok(input.address)
    }

    /// Where a buffer begins.
    pub fn address<T>(&self, slice: &CudaSlice<T>) -> Address {
        // One stream: nothing to wait for, so the guard may go at once.
        Address(slice.device_ptr(&self.device.cuda_stream()).0)
    }

    /// A buffer without values.
    ///
    /// # Errors
    /// Out of memory.
    pub fn room<T: DeviceRepr>(&self, count: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every caller queues a kernel that writes the whole of it (the tests fail where one does not), before anything that reads.
        unsafe { self.device.alloc::<T>(count.max(1)) }
    }

    /// A result of `count` values without values yet, and where it begins.
    ///
    /// # Errors
    /// Out of memory.
    pub fn result(&self, element: Element, count: usize) -> Result<(CudaStorage, Address)> {
        Ok(match element {
            Element::F32 => {
                let slice = self.room::<f32>(count)?;
                let address = self.address(&slice);
                (
                    CudaStorage::wrap_cuda_slice(slice, self.device.clone()),
                    address,
                )
            }
            Element::Bf16 => {
                let slice = self.room::<bf16>(count)?;
                let address = self.address(&slice);
                (
                    CudaStorage::wrap_cuda_slice(slice, self.device.clone()),
                    address,
                )
            }
        })
    }

    /// A copy of `values` on the device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn upload<T: DeviceRepr + Default + Clone + 'static>(
        &self,
        values: &[T],
    ) -> Result<CudaSlice<T>> {
        if values.is_empty() {
            // A driver copies no empty buffers.
            return self.device.clone_htod(&vec![T::default()]);
        }
        self.device.clone_htod(values)
    }

    /// Tables of a plan; those of the latest plans are kept, as every layer of a batch asks for the same.
    ///
    /// # Errors
    /// Out of memory.
    pub fn with_tables<R>(
        &self,
        segments: &Arc<[Segment]>,
        tile: usize,
        f: impl FnOnce(&Tables, Placed) -> Result<R>,
    ) -> Result<R> {
        let kept = self.tables(segments, tile)?;
        f(&kept.tables, kept.placed)
    }

    fn tables(&self, segments: &Arc<[Segment]>, tile: usize) -> Result<Arc<Kept>> {
        let mut all = self
            .loaded
            .tables
            .lock()
            .expect("nothing panics while it is held");
        let same = |kept: &&Arc<Kept>| Arc::ptr_eq(&kept.segments, segments) && kept.tile == tile;
        if let Some(kept) = all.iter().find(same) {
            return Ok(kept.clone());
        }
        let tables = Tables::new(segments, tile);
        let buffers = [
            self.upload(&tables.segments)?,
            self.upload(&tables.query_tiles)?,
            self.upload(&tables.key_tiles)?,
        ];
        let [segments_at, query_tiles, key_tiles] =
            [0, 1, 2].map(|i: usize| self.address(&buffers[i]));
        let kept = Arc::new(Kept {
            segments: segments.clone(),
            tile,
            tables,
            placed: Placed {
                segments: segments_at,
                query_tiles,
                key_tiles,
            },
            _buffers: buffers,
        });
        if all.len() == KEPT_TABLES {
            all.remove(0);
        }
        all.push(kept.clone());
        Ok(kept)
    }

    /// Queues one launch.
    ///
    /// # Errors
    /// What the driver says.
    pub fn run(&self, launch: &Launch) -> Result<()> {
        if launch.is_empty() {
            return Ok(());
        }
        let function = self.loaded.function(&launch.kernel)?;
        let stream = self.device.cuda_stream();
        stream.context().bind_to_thread().w()?;
        let mut arguments: Vec<*mut c_void> = launch
            .arguments
            .iter()
            .map(|argument| argument.as_ptr().cast_mut().cast())
            .collect();
        let ([gx, gy, gz], [bx, by, bz]) = (launch.grid, launch.block);
        // SAFETY: number, sizes and meaning of the arguments are those of the kernel, as the tests check launch by launch on the CPU; the driver copies them before it
        // returns. Addresses are of buffers alive now, and whatever frees them is queued behind this launch on the same stream.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                (gx, gy, gz),
                (bx, by, bz),
                launch.shared as u32,
                stream.cu_stream(),
                &mut arguments,
            )
        }
        .w()
    }
}

/// The element that kernels see in a tensor of this type.
pub fn element(dtype: DType) -> Option<Element> {
    match dtype {
        DType::F32 => Some(Element::F32),
        DType::BF16 => Some(Element::Bf16),
        _ => None,
    }
}

/// Libraries of CUDA that this program opens as it runs and that are not there.
pub fn missing_libraries() -> Vec<&'static str> {
    // SAFETY: each only tries to open its library.
    let found = unsafe {
        [
            ("libcuda", driver::sys::is_culib_present()),
            ("libcublas", cublas::sys::is_culib_present()),
            ("libcublasLt", cublaslt::sys::is_culib_present()),
            ("libcurand", curand::sys::is_culib_present()),
            ("libnvrtc", nvrtc::sys::is_culib_present()),
        ]
    };
    // The last is opened only to compile kernels at run time, which nothing here does.
    let needed = found.into_iter().filter(|(name, _)| *name != "libnvrtc");
    needed
        .filter(|(_, there)| !there)
        .map(|(name, _)| name)
        .collect()
}

/// A GPU as its driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability, 9.0 as (9, 0).
    pub capability: (i32, i32),
    /// The CUDA version that the driver brings, 13.0 as 13000.
    pub driver: i32,
    /// Bytes in all.
    pub memory: usize,
}

/// Number of GPUs.
///
/// # Errors
/// What the driver says. The driver's library must be there.
pub fn count() -> Result<usize> {
    result::init().w()?;
    Ok(result::device::get_count().w()? as usize)
}

/// What GPU `ordinal` is; touches no memory of it.
///
/// # Errors
/// Where there is none. The driver's library must be there.
pub fn describe(ordinal: usize) -> Result<Description> {
    result::init().w()?;
    let device = result::device::get(ordinal as i32).w()?;
    let mut driver = 0;
    // SAFETY: writes one int; `device` was just got from the driver.
    unsafe {
        sys::cuDriverGetVersion(&raw mut driver).result().w()?;
        let number = |attribute| result::device::get_attribute(device, attribute);
        Ok(Description {
            name: result::device::get_name(device).w()?,
            capability: (
                number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR).w()?,
                number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR).w()?,
            ),
            driver,
            memory: result::device::total_mem(device).w()?,
        })
    }
}

/// Prepares a device that candle has opened: one stream needs no events; freed memory stays in the pool, where the next batch finds it.
///
/// # Errors
/// What the driver says.
pub fn prepare(device: &CudaDevice) -> Result<()> {
    // SAFETY: all tensors of this device live on its one stream.
    unsafe { device.disable_event_tracking() };
    let context = device.cuda_stream().context().clone();
    context.bind_to_thread().w()?;
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    // SAFETY: the driver writes a handle, then reads a u64, both ours and alive.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device())
            .result()
            .w()?;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast())
            .result()
            .w()?;
    }
    Ok(())
}

/// Waits for everything queued and gives the pool's free memory back to the driver.
///
/// # Errors
/// What the driver says.
pub fn release(device: &CudaDevice) -> Result<()> {
    synchronize(device)?;
    let context = device.cuda_stream().context().clone();
    let mut pool = std::ptr::null_mut();
    // SAFETY: the driver writes a handle of ours; trimming touches only what nobody uses.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&raw mut pool, context.cu_device())
            .result()
            .w()?;
        sys::cuMemPoolTrimTo(pool, 0).result().w()
    }
}

/// Bytes free and in all. What the pool holds for reuse counts as used.
///
/// # Errors
/// What the driver says.
pub fn memory(device: &CudaDevice) -> Result<(usize, usize)> {
    device.cuda_stream().context().mem_get_info().w()
}

/// Waits for everything queued.
///
/// # Errors
/// What went wrong meanwhile.
pub fn synchronize(device: &CudaDevice) -> Result<()> {
    device.cuda_stream().synchronize().w()
}
