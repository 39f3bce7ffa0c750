//! Launches on a GPU: the embedded kernels, loaded once per device; addresses of candle's storages;
//! buffers; the driver's description of a device.
//!
//! All work of a device goes through candle's one stream for it, in order, so that a buffer may be
//! dropped as soon as the launches that use it are queued.
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

use super::attention::{TableAddresses, Tables};
use super::launch::{Address, Element, Launch};
use crate::kernels::plan::Segment;

/// The compiled kernels, from build.rs.
static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));

/// Number of plans whose tables stay on the device: those of a model's encoder and decoder, and of
/// both their attentions, for the layers of one batch.
const RETAINED_TABLES: usize = 4;

/// The kernels on one device.
struct LoadedKernels {
    module: Arc<CudaModule>,
    functions: Mutex<HashMap<String, CudaFunction>>,
    tables: Mutex<Vec<Arc<RetainedTables>>>,
}

struct RetainedTables {
    segments: Arc<[Segment]>,
    tile: usize,
    tables: Tables,
    placed: TableAddresses,
    _buffers: [CudaSlice<i32>; 3],
}

fn loaded(device: &CudaDevice) -> Result<Arc<LoadedKernels>> {
    static ALL: Mutex<Vec<(DeviceId, Arc<LoadedKernels>)>> = Mutex::new(Vec::new());
    let mut all = ALL.lock().expect("nothing panics while it is held");
    if let Some((_, loaded)) = all.iter().find(|(id, _)| *id == device.id()) {
        return Ok(loaded.clone());
    }
    let context = device.cuda_stream().context().clone();
    let image = nvrtc::Ptx::from_binary(KERNELS.to_vec());
    let loaded = Arc::new(LoadedKernels {
        module: context.load_module(image).w()?,
        functions: Mutex::default(),
        tables: Mutex::default(),
    });
    all.push((device.id(), loaded.clone()));
    Ok(loaded)
}

impl LoadedKernels {
    fn function(&self, name: &str) -> Result<CudaFunction> {
        let mut functions = self
            .functions
            .lock()
            .expect("nothing panics while it is held");
        if let Some(function) = functions.get(name) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(name).w()?;
        // A kernel must request more than 48 KiB.
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
    loaded: Arc<LoadedKernels>,
}

/// A tensor that a kernel reads.
#[derive(Clone, Copy, Debug)]
pub struct GpuValues {
    /// Address of the first value.
    pub address: Address,
    /// Number type of the values.
    pub element: Element,
}

impl<'a> Gpu<'a> {
    /// `device` with the kernels on it.
    ///
    /// # Errors
    /// Where the driver cannot load the kernels.
    pub fn of(device: &'a CudaDevice) -> Result<Self> {
        Ok(Self {
            device,
            loaded: loaded(device)?,
        })
    }

    /// The values of a tensor, which may begin anywhere in its storage.
    ///
    /// # Errors
    /// Where no kernel reads the type.
    pub fn input(&self, storage: &CudaStorage, layout: &Layout) -> Result<GpuValues> {
        let (address, element) = match &storage.slice {
            CudaStorageSlice::F32(slice) => (self.address(slice), Element::F32),
            CudaStorageSlice::BF16(slice) => (self.address(slice), Element::Bf16),
            _ => candle_core::bail!("CUDA kernels compute in f32 and bf16"),
        };
        Ok(GpuValues {
            address: address.plus(layout.start_offset(), element),
            element,
        })
    }

    /// The values of a contiguous tensor.
    ///
    /// # Errors
    /// Where the tensor is not contiguous, or no kernel reads its type.
    pub fn contiguous(&self, storage: &CudaStorage, layout: &Layout) -> Result<GpuValues> {
        if !layout.is_contiguous() {
            candle_core::bail!("this kernel needs contiguous rows");
        }
        self.input(storage, layout)
    }

    /// The f32 values of a contiguous tensor.
    ///
    /// # Errors
    /// Where the tensor is not contiguous, or not f32.
    pub fn floats(&self, storage: &CudaStorage, layout: &Layout) -> Result<Address> {
        let input = self.contiguous(storage, layout)?;
        if input.element != Element::F32 {
            candle_core::bail!("this kernel needs f32 weights");
        }
        Ok(input.address)
    }

    /// The address of a buffer.
    pub fn address<T>(&self, slice: &CudaSlice<T>) -> Address {
        // There is one stream, so there is nothing to wait for, and the guard may be dropped at
        // once.
        Address(slice.device_ptr(&self.device.cuda_stream()).0)
    }

    /// A buffer of arbitrary values.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn room<T: DeviceRepr>(&self, count: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every caller queues a kernel that writes the whole of it (the tests fail where
        // one does not), before anything that reads.
        unsafe { self.device.alloc::<T>(count.max(1)) }
    }

    /// A result of `count` arbitrary values, and its address.
    ///
    /// # Errors
    /// Where memory runs out.
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
    /// Where memory runs out.
    pub fn upload<T: DeviceRepr + Default + Clone + 'static>(
        &self,
        values: &[T],
    ) -> Result<CudaSlice<T>> {
        if values.is_empty() {
            // The driver copies no empty buffers.
            return self.device.clone_htod(&vec![T::default()]);
        }
        self.device.clone_htod(values)
    }

    /// Runs `f` on the tables of a plan. The tables of the latest plans are retained, because every
    /// layer of a batch uses the same.
    ///
    /// # Errors
    /// Where memory runs out.
    pub fn with_tables<R>(
        &self,
        segments: &Arc<[Segment]>,
        tile: usize,
        f: impl FnOnce(&Tables, TableAddresses) -> Result<R>,
    ) -> Result<R> {
        let kept = self.tables(segments, tile)?;
        f(&kept.tables, kept.placed)
    }

    fn tables(&self, segments: &Arc<[Segment]>, tile: usize) -> Result<Arc<RetainedTables>> {
        let mut all = self
            .loaded
            .tables
            .lock()
            .expect("nothing panics while it is held");
        let same = |kept: &&Arc<RetainedTables>| {
            Arc::ptr_eq(&kept.segments, segments) && kept.tile == tile
        };
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
        let kept = Arc::new(RetainedTables {
            segments: segments.clone(),
            tile,
            tables,
            placed: TableAddresses {
                segments: segments_at,
                query_tiles,
                key_tiles,
            },
            _buffers: buffers,
        });
        if all.len() == RETAINED_TABLES {
            all.remove(0);
        }
        all.push(kept.clone());
        Ok(kept)
    }

    /// Queues one launch on the stream.
    ///
    /// # Errors
    /// Where the driver reports an error.
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
        // SAFETY: number, sizes and meaning of the arguments are those of the kernel, as the tests
        // check launch by launch on the CPU; the driver copies them before it returns. Addresses
        // are of buffers alive now, and whatever frees them is queued behind this launch on the
        // same stream.
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

/// The number type of kernels for a tensor of this type.
pub fn element(dtype: DType) -> Option<Element> {
    match dtype {
        DType::F32 => Some(Element::F32),
        DType::BF16 => Some(Element::Bf16),
        _ => None,
    }
}

/// The CUDA libraries that this program opens at run time and that are missing.
pub fn missing_libraries() -> Vec<&'static str> {
    // SAFETY: each call only tries to open its library.
    let found = unsafe {
        [
            ("libcuda", driver::sys::is_culib_present()),
            ("libcublas", cublas::sys::is_culib_present()),
            ("libcublasLt", cublaslt::sys::is_culib_present()),
            ("libcurand", curand::sys::is_culib_present()),
            ("libnvrtc", nvrtc::sys::is_culib_present()),
        ]
    };
    // libnvrtc is needed only to compile kernels at run time, which this program does not.
    let needed = found.into_iter().filter(|(name, _)| *name != "libnvrtc");
    needed
        .filter(|(_, there)| !there)
        .map(|(name, _)| name)
        .collect()
}

/// The driver's description of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuDescription {
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability, 9.0 as (9, 0).
    pub capability: (i32, i32),
    /// CUDA version of the driver, 13.0 as 13000.
    pub driver: i32,
}

/// Number of GPUs.
///
/// # Errors
/// Where the driver reports an error. The driver's library must be there.
pub fn count() -> Result<usize> {
    result::init().w()?;
    Ok(result::device::get_count().w()? as usize)
}

/// The description of GPU `ordinal`, without touching its memory.
///
/// # Errors
/// Where there is no such GPU. The driver's library must exist.
pub fn describe(ordinal: usize) -> Result<GpuDescription> {
    result::init().w()?;
    let device = result::device::get(ordinal as i32).w()?;
    let mut driver = 0;
    // SAFETY: writes one int; `device` was just got from the driver.
    unsafe {
        sys::cuDriverGetVersion(&raw mut driver).result().w()?;
        let number = |attribute| result::device::get_attribute(device, attribute);
        Ok(GpuDescription {
            name: result::device::get_name(device).w()?,
            capability: (
                number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR).w()?,
                number(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR).w()?,
            ),
            driver,
        })
    }
}

/// Prepares a device that candle has opened: one stream needs no events, and freed memory stays in
/// the pool for the next batch.
///
/// # Errors
/// Where the driver reports an error.
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

/// Waits for everything queued, and returns the free memory of the pool to the driver.
///
/// # Errors
/// Where the driver reports an error.
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

/// Bytes of free memory and of all memory. Memory that the pool holds for reuse counts as used.
///
/// # Errors
/// Where the driver reports an error.
pub fn memory(device: &CudaDevice) -> Result<(usize, usize)> {
    device.cuda_stream().context().mem_get_info().w()
}

/// Waits for everything queued.
///
/// # Errors
/// Where the queued work failed.
pub fn synchronize(device: &CudaDevice) -> Result<()> {
    device.cuda_stream().synchronize().w()
}
