//! A session that several threads run at the same time, so that its weights are there once.
//!
//! ONNX Runtime's documentation allows concurrent calls of `Run`
//! (<https://onnxruntime.ai/docs/api/c/struct_ort_api.html>); `ort`'s safe API does not, because
//! of execution providers that broke the promise. So this file calls the C API, and the backend uses
//! it unasked for the CPU alone, where it was tested.

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use ::ort::session::{RunOptions, Session, SharedSessionInner};
use ::ort::sys::OrtValue;
use ::ort::value::DynValue;
use ::ort::{AsPointer, Error, memory::Allocator};

use super::{element, run_options, value};
use crate::backend::{Artifact, LoadError};
use crate::model::{Signature, TensorSpec};
use crate::tensor::Tensor;

/// A session that several threads may run at the same time.
pub(super) struct SharedSession {
    signature: Signature,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    session: Arc<SharedSessionInner>,
    options: Option<RunOptions>,
}

impl SharedSession {
    pub(super) fn new(session: &Session, artifact: &Artifact) -> Result<Self, LoadError> {
        let file = &artifact.file;
        let signature = element::signature(session, artifact)?;
        Ok(Self {
            inputs: names(&signature.inputs, file)?,
            outputs: names(&signature.outputs, file)?,
            signature,
            session: session.inner(),
            options: run_options(artifact)?,
        })
    }

    pub(super) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Runs it on these inputs, which are in the signature's order, as the outputs are; none where
    /// one is left out.
    pub(super) fn run(
        &self,
        inputs: &[Option<DynValue>],
        allocator: &Allocator,
    ) -> Result<Vec<Tensor>, Error> {
        let mut outputs = vec![ptr::null_mut(); self.outputs.len()];
        self.call(inputs, &mut outputs)?;
        let outputs: Vec<Result<DynValue, Error>> = outputs
            .into_iter()
            .map(|output| value::own(output, allocator))
            .collect();
        outputs
            .into_iter()
            .map(|output| value::to_tensor(output?, &self.session))
            .collect()
    }

    /// The same, with outputs put into values that are there. An error if one is of another shape.
    pub(super) fn run_into(
        &self,
        inputs: &[Option<DynValue>],
        outputs: &[DynValue],
    ) -> Result<(), Error> {
        let outputs = outputs.iter().map(|value| value.ptr().cast_mut());
        self.call(inputs, &mut outputs.collect::<Vec<_>>())
    }

    /// Makes a value for each output that is null, and writes into the others.
    fn call(
        &self,
        inputs: &[Option<DynValue>],
        outputs: &mut [*mut OrtValue],
    ) -> Result<(), Error> {
        if (inputs.len(), outputs.len()) != (self.inputs.len(), self.outputs.len()) {
            return Err(Error::new("an input or output is missing"));
        }
        let mut input_names = Vec::with_capacity(inputs.len());
        let mut values = Vec::with_capacity(inputs.len());
        for (name, value) in self.inputs.iter().zip(inputs) {
            if let Some(value) = value {
                input_names.push(name.as_ptr());
                values.push(value.ptr());
            }
        }
        let output_names: Vec<_> = self.outputs.iter().map(|name| name.as_ptr()).collect();
        let options = self.options.as_ref().map_or(ptr::null(), AsPointer::ptr);
        let run = ::ort::api().Run;
        // SAFETY: the session lives as long as `self`; every list is as long as it is said to be,
        // and what it points to outlives the call. ONNX Runtime fills in each null output, and compares the
        // shapes of the others with what it has for them.
        let status = unsafe {
            run(
                self.session.ptr().cast_mut(),
                options,
                input_names.as_ptr(),
                values.as_ptr(),
                values.len(),
                output_names.as_ptr(),
                output_names.len(),
                outputs.as_mut_ptr(),
            )
        };
        value::check(status)
    }
}

impl SharedSession {
    /// Ends the profile of a session that was made with one; the file that it is in.
    pub(super) fn end_profile(&self, allocator: &Allocator) -> Result<String, Error> {
        let mut name = ptr::null_mut();
        let end = ::ort::api().SessionEndProfiling;
        let memory = allocator.ptr().cast_mut();
        // SAFETY: the session and the allocator live as long as the call; the name is written by it.
        let status = unsafe { end(self.session.ptr().cast_mut(), memory, &raw mut name) };
        value::check(status)?;
        // SAFETY: on success it is a string that ends with a NUL, in memory of the allocator.
        let file = unsafe { CStr::from_ptr(name) };
        let file = file.to_string_lossy().into_owned();
        // SAFETY: the allocator gave this memory, and nobody has it any more.
        unsafe { allocator.free(name) };
        Ok(file)
    }
}

fn names(specs: &[TensorSpec], file: &Path) -> Result<Vec<CString>, LoadError> {
    let names = specs.iter().map(|spec| CString::new(spec.name.as_str()));
    names
        .collect::<Result<_, _>>()
        .map_err(|_| LoadError::Model {
            file: file.to_owned(),
            reason: "the name of an input or output holds a NUL".to_owned(),
        })
}
