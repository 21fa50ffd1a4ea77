//! The entry points, under the names by which they are looked for.
//!
//! A pointer that the driver writes one value to is an `Option<&mut T>`, which C passes the same way.

#![allow(non_snake_case, reason = "the names are CUDA's")]

use std::alloc::{self, Layout};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs;
use std::os::unix::fs::FileExt;
use std::slice;

use crate::code::{
    self, Code, INVALID_CONTEXT, INVALID_HANDLE, INVALID_VALUE, NOT_SUPPORTED, OPERATING_SYSTEM,
    OUT_OF_MEMORY, SUCCESS,
};
use crate::memory::{self, Name};
use crate::process::{Allocation, current, early, make_current, on_device, started};

/// Page-locked memory begins at multiples of this.
const PAGE: usize = 4096;

fn put<T>(place: Option<&mut T>, value: T) -> Result<(), Code> {
    *place.ok_or(INVALID_VALUE)? = value;
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_flags: c_uint) -> Code {
    early("cuInit", |process, control| {
        process.devices.get_or_insert(control.devices());
        match process.devices {
            Some(0) => Err(code::NO_DEVICE),
            _ => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: Option<&mut c_int>) -> Code {
    early("cuDriverGetVersion", |_, control| {
        put(version, control.code("version").unwrap_or(13_000))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(error: Code, text: Option<&mut *const c_char>) -> Code {
    tell(text, code::told(error).0)
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(error: Code, text: Option<&mut *const c_char>) -> Code {
    tell(text, code::told(error).1)
}

fn tell(place: Option<&mut *const c_char>, text: &'static CStr) -> Code {
    put(place, text.as_ptr()).err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: Option<&mut c_int>) -> Code {
    started("cuDeviceGetCount", |process, _| {
        let devices = process.devices.unwrap_or(0);
        put(count, c_int::try_from(devices).unwrap_or(c_int::MAX))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: Option<&mut c_int>, ordinal: c_int) -> Code {
    started("cuDeviceGet", |process, _| {
        process.device(ordinal)?;
        put(device, ordinal)
    })
}

/// # Safety
///
/// `name` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuDeviceGetName(name: *mut u8, length: c_int, device: c_int) -> Code {
    started("cuDeviceGetName", |process, _| {
        let number = process.device(device)?;
        let length = usize::try_from(length).map_err(|_| INVALID_VALUE)?;
        if name.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the caller says that there is room for so much, and writes nothing there meanwhile.
        let room = unsafe { slice::from_raw_parts_mut(name, length) };
        let text = format!("Jitney GPU {number}");
        room.fill(0);
        let (_, places) = room.split_last_mut().ok_or(INVALID_VALUE)?;
        for (place, byte) in places.iter_mut().zip(text.bytes()) {
            *place = byte;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetUuid(uuid: Option<&mut [u8; 16]>, device: c_int) -> Code {
    started("cuDeviceGetUuid", |process, _| {
        let number = process.device(device)?;
        // With bytes that have a sign where C's char has one.
        put(
            uuid,
            (0xf0e1_d2c3_b4a5_9687_0000_0000_0000_0000 + u128::from(number)).to_be_bytes(),
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(
    value: Option<&mut c_int>,
    attribute: c_int,
    device: c_int,
) -> Code {
    /// CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    const MAJOR: c_int = 75;
    started("cuDeviceGetAttribute", |process, _| {
        process.device(device)?;
        put(value, if attribute == MAJOR { 9 } else { 0 })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: Option<&mut usize>, device: c_int) -> Code {
    started("cuDevicePrimaryCtxRetain", |process, control| {
        let number = process.device(device)?;
        put(context, process.retain(control, number)?)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> Code {
    started("cuDevicePrimaryCtxRelease", |process, control| {
        let number = process.device(device)?;
        process.release(control, number)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetCurrent(context: Option<&mut usize>) -> Code {
    started("cuCtxGetCurrent", |_, _| put(context, current()))
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: usize) -> Code {
    started("cuCtxSetCurrent", |process, _| {
        make_current(process, context)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSynchronize() -> Code {
    on_device("cuCtxSynchronize", |process, _, _| process.land())
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: usize) -> Code {
    on_device("cuStreamSynchronize", |process, _, _| {
        if stream != 0 && !process.streams.contains(&stream) {
            return Err(INVALID_HANDLE);
        }
        process.land()
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreate(stream: Option<&mut usize>, _flags: c_uint) -> Code {
    on_device("cuStreamCreate", |process, _, _| {
        // Not one of the few that mean something of their own.
        let handle = 0x10_0000 + process.number() as usize;
        process.streams.insert(handle);
        put(stream, handle)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: usize) -> Code {
    on_device("cuStreamDestroy", |process, _, _| {
        let known = process.streams.remove(&stream);
        known.then_some(()).ok_or(INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: Option<&mut usize>, total: Option<&mut usize>) -> Code {
    on_device("cuMemGetInfo", |_, control, device| {
        let all = control.memory_bytes();
        let used = memory::used(control.folder(), device);
        put(free, all.saturating_sub(used) as usize)?;
        put(total, all as usize)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(place: Option<&mut usize>, bytes: usize, _flags: c_uint) -> Code {
    on_device("cuMemHostAlloc", |process, control, _| {
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| INVALID_VALUE)?;
        let bound = control.number("pinned_bytes").unwrap_or(u64::MAX);
        let pinned: usize = process.pinned.values().map(Layout::size).sum();
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        if (pinned + bytes) as u64 > bound {
            return Err(OUT_OF_MEMORY);
        }
        // SAFETY: the layout has a size.
        let start = unsafe { alloc::alloc(layout) } as usize;
        if start == 0 {
            return Err(OUT_OF_MEMORY);
        }
        process.pinned.insert(start, layout);
        put(place, start)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(start: *mut c_void) -> Code {
    on_device("cuMemFreeHost", |process, _, _| {
        let layout = process.pinned.remove(&(start as usize));
        let layout = layout.ok_or(INVALID_VALUE)?;
        // SAFETY: it was allocated with this layout, and is freed once.
        unsafe { alloc::dealloc(start.cast(), layout) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(place: Option<&mut u64>, bytes: usize) -> Code {
    on_device("cuMemAlloc", |process, control, device| {
        if bytes == 0 {
            return Err(INVALID_VALUE);
        }
        let (bytes, number) = (bytes as u64, process.number());
        let (name, file) = process.reserve(control, device, number, bytes)?;
        let allocation = Allocation {
            name,
            file,
            bytes,
            opened: None,
        };
        put(place, process.place(device, allocation))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(start: u64) -> Code {
    on_device("cuMemFree", |process, control, _| {
        let own = |allocation: &&Allocation| allocation.opened.is_none();
        let found = process.allocations.get(&start).filter(own);
        let name = found.ok_or(INVALID_VALUE)?.name;
        process.allocations.remove(&start);
        fs::remove_file(name.path(control.folder())).map_err(|_| OPERATING_SYSTEM)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetAddressRange_v2(
    base: Option<&mut u64>,
    bytes: Option<&mut usize>,
    start: u64,
) -> Code {
    on_device("cuMemGetAddressRange", |process, _, _| {
        let (allocation, offset) = process.at(start, 1)?;
        put(base, start - offset)?;
        put(bytes, allocation.bytes as usize)
    })
}

/// # Safety
///
/// `host` has room for `bytes`.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyDtoH_v2(host: *mut u8, start: u64, bytes: usize) -> Code {
    on_device("cuMemcpyDtoH", |process, _, _| {
        process.land()?;
        let (allocation, offset) = process.at(start, bytes as u64)?;
        // SAFETY: the caller says that there is room for so much, which nobody else uses.
        let host = unsafe { slice::from_raw_parts_mut(host, bytes) };
        let read = allocation.file.read_exact_at(host, offset);
        read.map_err(|_| OPERATING_SYSTEM)
    })
}

/// # Safety
///
/// At `host` are `bytes` that can be read.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuMemcpyHtoD_v2(start: u64, host: *const u8, bytes: usize) -> Code {
    on_device("cuMemcpyHtoD", |process, _, _| {
        process.land()?;
        process.at(start, bytes as u64)?;
        // SAFETY: the caller says that so much can be read there.
        let host = unsafe { slice::from_raw_parts(host, bytes) };
        process.under_way = Some((start, host.to_vec()));
        Ok(())
    })
}

/// A `CUipcMemHandle`, which C passes by its value.
#[repr(C)]
pub(crate) struct Handle([u8; 64]);

#[unsafe(no_mangle)]
extern "C" fn cuIpcGetMemHandle(handle: Option<&mut Handle>, start: u64) -> Code {
    on_device("cuIpcGetMemHandle", |process, _, _| {
        let (allocation, _) = process.at(start, 1)?;
        put(handle, Handle(allocation.name.handle()))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuIpcOpenMemHandle_v2(
    place: Option<&mut u64>,
    handle: Handle,
    _flags: c_uint,
) -> Code {
    on_device("cuIpcOpenMemHandle", |process, control, device| {
        let name = Name::of_handle(&handle.0).ok_or(INVALID_VALUE)?;
        if name.process == std::process::id() || name.device != device {
            return Err(INVALID_CONTEXT);
        }
        let known = process.allocations.iter_mut();
        let mut known = known.filter(|(_, allocation)| allocation.name == name);
        if let Some((start, allocation)) = known.next() {
            allocation.opened = allocation.opened.map(|times| times + 1);
            return put(place, *start);
        }
        let file = name.open(control.folder()).map_err(|_| INVALID_HANDLE)?;
        let bytes = file.metadata().map_err(|_| OPERATING_SYSTEM)?.len();
        let allocation = Allocation {
            name,
            file,
            bytes,
            opened: Some(1),
        };
        put(place, process.place(device, allocation))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuIpcCloseMemHandle(start: u64) -> Code {
    on_device("cuIpcCloseMemHandle", |process, _, _| {
        let found = process.allocations.get_mut(&start);
        let times = found.and_then(|allocation| allocation.opened.as_mut());
        let times = times.ok_or(INVALID_VALUE)?;
        *times -= 1;
        if *times == 0 {
            process.allocations.remove(&start);
        }
        Ok(())
    })
}

/// ONNX Runtime's CUDA provider is linked with it; nothing here can run what it is for.
#[unsafe(no_mangle)]
extern "C" fn cuTensorMapEncodeTiled() -> Code {
    early("cuTensorMapEncodeTiled", |_, _| Err(NOT_SUPPORTED))
}
