//! Tensors in and out of ONNX Runtime's values, without a copy where there are numbers.
//!
//! The safe API knows element types at compile time, and its strings have neither NUL nor bytes
//! that are not UTF-8; the protocol's have both. So this file talks to the C API.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ::ort::memory::{Allocator, MemoryInfo};
use ::ort::session::SharedSessionInner;
use ::ort::sys::{OrtStatusPtr, OrtValue};
use ::ort::value::{DynValue, ValueType};
use ::ort::{AsPointer, Error};
use bytes::Bytes;

use super::element;
use crate::backend::{Input, Outline, Place};
use crate::tensor::{BytesElements, Dtype, Shape, Tensor, append_element, elements};

/// A status of the C API as a result.
pub(super) fn check(status: OrtStatusPtr) -> Result<(), Error> {
    // SAFETY: every caller passes the status that the C API has just returned, and does so once.
    unsafe { Error::result_from_status(status) }
}

/// A value over the input's own memory, or a copy of it if its elements are strings.
///
/// # Safety
/// The value must be dropped before the input's memory is freed or written.
pub(super) unsafe fn from_input(
    input: &Input<'_>,
    host: &MemoryInfo<'_>,
    allocator: &Allocator,
) -> Result<DynValue, Error> {
    match input.dtype {
        Dtype::Bytes => string_value(input, allocator),
        _ => number_value(input, host, allocator),
    }
}

fn number_value(
    input: &Input<'_>,
    host: &MemoryInfo<'_>,
    allocator: &Allocator,
) -> Result<DynValue, Error> {
    let start = input.data.as_ptr().cast_mut();
    // SAFETY: ONNX Runtime does not write to a graph's inputs, so that the cast from const is sound; that the
    // memory outlives the value is the caller's promise.
    unsafe {
        over(
            start,
            input.data.len(),
            input.dtype,
            input.shape,
            host,
            allocator,
        )
    }
}

/// A value over memory that an output is to be put into.
///
/// # Safety
/// The value must be dropped before the memory is freed, read or written by others.
pub(super) unsafe fn over_place(
    place: &mut Place<'_>,
    host: &MemoryInfo<'_>,
    allocator: &Allocator,
) -> Result<DynValue, Error> {
    let Outline { dtype, shape } = place.outline;
    let (start, length) = (place.data.as_mut_ptr(), place.data.len());
    // SAFETY: the memory is borrowed to be written; that it outlives the value is the caller's promise.
    unsafe { over(start, length, *dtype, shape, host, allocator) }
}

/// A value over memory with numbers in it.
///
/// # Safety
/// The memory has to be valid for as long as the value is there, and to be written if it is an output.
unsafe fn over(
    start: *mut u8,
    length: usize,
    dtype: Dtype,
    shape: &[i64],
    host: &MemoryInfo<'_>,
    allocator: &Allocator,
) -> Result<DynValue, Error> {
    let size = dtype.size().unwrap_or(1);
    let wanted = elements(shape).and_then(|count| count.checked_mul(size));
    if wanted != Some(length) {
        return Err(Error::new("a tensor's bytes do not match its shape"));
    }
    let mut value: *mut OrtValue = ptr::null_mut();
    let create = ::ort::api().CreateTensorWithDataAsOrtValue;
    // SAFETY: data and shape are valid for the lengths given, and the length was checked to be
    // what the shape takes.
    let status = unsafe {
        create(
            host.ptr(),
            start.cast::<c_void>(),
            length,
            shape.as_ptr(),
            shape.len(),
            element::onnx(dtype),
            &raw mut value,
        )
    };
    check(status)?;
    own(value, allocator)
}

/// Takes a value that the C API has just created.
pub(super) fn own(value: *mut OrtValue, allocator: &Allocator) -> Result<DynValue, Error> {
    let value = NonNull::new(value).ok_or_else(|| Error::new("no value was created"))?;
    // SAFETY: `value` is a tensor that the C API has just created and that nobody else owns.
    Ok(unsafe { DynValue::from_ptr(value, Some(allocator)) })
}

fn string_value(input: &Input<'_>, allocator: &Allocator) -> Result<DynValue, Error> {
    let mut value: *mut OrtValue = ptr::null_mut();
    let create = ::ort::api().CreateTensorAsOrtValue;
    // SAFETY: the shape is valid for its length; the allocator is ONNX Runtime's own.
    let status = unsafe {
        create(
            allocator.ptr().cast_mut(),
            input.shape.as_ptr(),
            input.shape.len(),
            element::onnx(Dtype::Bytes),
            &raw mut value,
        )
    };
    check(status)?;
    let value = own(value, allocator)?;
    for (index, bytes) in BytesElements::new(input.data).enumerate() {
        let bytes = bytes.map_err(|error| Error::new(error.to_string()))?;
        fill(&value, index, bytes)?;
    }
    Ok(value)
}

fn fill(value: &DynValue, index: usize, bytes: &[u8]) -> Result<(), Error> {
    let mut buffer = ptr::null_mut();
    let resize = ::ort::api().GetResizedStringTensorElementBuffer;
    // SAFETY: `value` is a string tensor; an index beyond its end is refused with a status.
    let status = unsafe { resize(value.ptr().cast_mut(), index, bytes.len(), &raw mut buffer) };
    check(status)?;
    if !buffer.is_null() {
        // SAFETY: the buffer has just been made to hold `bytes.len()` bytes, and it is new.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast::<u8>(), bytes.len()) };
    }
    Ok(())
}

/// An output's memory, kept until the last response that shares it has been sent.
struct OutputMemory {
    start: *const u8,
    length: usize,
    _value: DynValue,
    /// The value's memory came from an allocator of this session.
    _session: Arc<SharedSessionInner>,
}

// SAFETY: nothing writes to an output's memory after the run, and `DynValue` is Send itself.
unsafe impl Send for OutputMemory {}

impl AsRef<[u8]> for OutputMemory {
    fn as_ref(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `start` points to `length` bytes that `_value` owns.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

/// A tensor that shares the output's memory, or a copy of it if its elements are strings.
pub(super) fn to_tensor(
    value: DynValue,
    session: &Arc<SharedSessionInner>,
) -> Result<Tensor, Error> {
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(Error::new("an output is not a tensor"));
    };
    let dtype = element::dtype(*ty).ok_or_else(|| Error::new(format!("an output is {ty}")))?;
    let shape = Shape::new(shape);
    let count = elements(&shape).ok_or_else(|| Error::new("an output's shape overflows"))?;
    let data = match dtype.size() {
        Some(size) => numbers(value, count * size, session)?,
        None => strings(&value, count)?,
    };
    Ok(Tensor { dtype, shape, data })
}

fn numbers(
    value: DynValue,
    length: usize,
    session: &Arc<SharedSessionInner>,
) -> Result<Bytes, Error> {
    let mut start = ptr::null_mut();
    let data = ::ort::api().GetTensorMutableData;
    // SAFETY: `value` is a tensor of numbers. Its memory is the host's: the executor runs either on
    // the host or with every output bound to memory that the host reads.
    let status = unsafe { data(value.ptr().cast_mut(), &raw mut start) };
    check(status)?;
    Ok(Bytes::from_owner(OutputMemory {
        start: start.cast_const().cast(),
        length,
        _value: value,
        _session: Arc::clone(session),
    }))
}

fn strings(value: &DynValue, count: usize) -> Result<Bytes, Error> {
    let mut length = 0;
    let measure = ::ort::api().GetStringTensorDataLength;
    // SAFETY: `value` is a tensor of strings.
    check(unsafe { measure(value.ptr(), &raw mut length) })?;
    let mut content = vec![0_u8; length];
    let mut offsets = vec![0_usize; count];
    let read = ::ort::api().GetStringTensorContent;
    // SAFETY: both buffers are as long as ONNX Runtime has just said that it needs.
    let status = unsafe {
        read(
            value.ptr(),
            content.as_mut_ptr().cast(),
            length,
            offsets.as_mut_ptr(),
            count,
        )
    };
    check(status)?;
    let mut raw = Vec::with_capacity(length + 4 * count);
    let ends = offsets.iter().skip(1).copied().chain([length]);
    for (start, end) in offsets.iter().copied().zip(ends) {
        append_element(&mut raw, content.get(start..end).unwrap_or(&[]));
    }
    Ok(raw.into())
}
