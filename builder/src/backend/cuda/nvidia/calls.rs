//! The driver's calls, each with a plain number for its answer. The bindings declare an enum there, and a driver that is younger than they
//! are answers with codes which that enum does not list: undefined behaviour, however the answer is looked at.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::sync::OnceLock;

use cudarc::driver::sys;
use sys::{CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction, CUfunction_attribute, CUmodule, CUresult, CUstream};

/// CUDA_ERROR_NOT_FOUND: what a call answers that the library does not have.
const NOT_FOUND: u32 = 500;

macro_rules! call {
    ($call:ident($($arg:ident: $kind:ty),*)) => {
        #[allow(non_snake_case, clippy::too_many_arguments)]
        pub(super) unsafe fn $call($($arg: $kind),*) -> u32 {
            type Call = unsafe extern "C" fn($($kind),*) -> u32;
            static CALL: OnceLock<Option<Call>> = OnceLock::new();
            // SAFETY: the arguments are those of the bindings, the answer is a C enum, which is an int; the library is never closed.
            let call = CALL.get_or_init(|| unsafe { sys::culib().get::<Call>(stringify!($call).as_bytes()) }.ok().map(|call| *call));
            // SAFETY: what the caller promises is what the call asks for.
            call.map_or(NOT_FOUND, |call| unsafe { call($($arg),*) })
        }
    };
}

/// Calls, held against the bindings' own declarations.
macro_rules! calls {
    ($($call:ident($($arg:ident: $kind:ty),*);)*) => {$(
        call!($call($($arg: $kind),*));
        const _: unsafe fn($($kind),*) -> CUresult = sys::$call;
    )*};
}

// The bindings want a code of their enum here.
call!(cuGetErrorName(code: u32, name: *mut *const c_char));
call!(cuGetErrorString(code: u32, text: *mut *const c_char));

calls! {
    cuInit(flags: c_uint);
    cuDriverGetVersion(version: *mut c_int);
    cuDeviceGetCount(count: *mut c_int);
    cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
    cuDeviceGetName(name: *mut c_char, room: c_int, device: CUdevice);
    cuDeviceGetAttribute(value: *mut c_int, which: CUdevice_attribute, device: CUdevice);
    cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
    cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice);
    cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    cuCtxSetCurrent(context: CUcontext);
    cuCtxSynchronize();
    cuMemGetInfo_v2(free: *mut usize, all: *mut usize);
    cuMemAlloc_v2(at: *mut CUdeviceptr, bytes: usize);
    cuMemFree_v2(at: CUdeviceptr);
    cuMemHostAlloc(memory: *mut *mut c_void, bytes: usize, flags: c_uint);
    cuMemFreeHost(memory: *mut c_void);
    cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream);
    cuMemcpyDtoDAsync_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream);
    cuMemsetD8Async(at: CUdeviceptr, byte: c_uchar, bytes: usize, stream: CUstream);
    cuStreamCreate(stream: *mut CUstream, flags: c_uint);
    cuStreamDestroy_v2(stream: CUstream);
    cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint);
    cuEventCreate(event: *mut CUevent, flags: c_uint);
    cuEventDestroy_v2(event: CUevent);
    cuEventRecord(event: CUevent, stream: CUstream);
    cuEventSynchronize(event: CUevent);
    cuEventElapsedTime(milliseconds: *mut f32, begun: CUevent, ended: CUevent);
    cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
    cuModuleUnload(module: CUmodule);
    cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char);
    cuFuncGetAttribute(value: *mut c_int, which: CUfunction_attribute, function: CUfunction);
    cuFuncSetAttribute(function: CUfunction, which: CUfunction_attribute, value: c_int);
    cuLaunchKernel(
        function: CUfunction, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint,
        shared_bytes: c_uint, stream: CUstream, args: *mut *mut c_void, extra: *mut *mut c_void
    );
}
