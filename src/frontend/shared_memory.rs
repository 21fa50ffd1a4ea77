//! Calls about shared memory, and requests whose tensors lie in it.

use std::sync::Arc;

use bytes::Bytes;

use super::api::Api;
use super::limits::{Held, Unpacked};
use crate::proto::*;
use crate::serving::{
    InferRequest, InferResponse, Region, RegionKind, RegionMemory, RegionPart, Span,
};
use crate::status::Status;
use crate::telemetry::Watched;
use crate::wire::Regions;
use crate::{
    proto::cuda_shared_memory_status_response::RegionStatus as CudaRegion,
    proto::system_shared_memory_status_response::RegionStatus as SystemRegion,
};

impl Api {
    /// Answers a request with tensors in shared memory: inputs are copied from there, outputs to there.
    pub(super) async fn infer_shared(
        &self,
        mut request: InferRequest,
        regions: Regions,
        held: Option<&Arc<Held>>,
        watched: &mut Watched<'_>,
    ) -> Result<InferResponse, Status> {
        let model = request.model.clone();
        let about = |status: Status| status.about(format_args!("model {model:?}"));
        let outputs = self.spans(regions.outputs, |position| {
            let name = request.outputs.get(position);
            format!("output {:?}", name.map_or("", String::as_str))
        });
        let outputs = outputs.map_err(about)?;
        let inputs = self.spans(regions.inputs, |position| {
            let input = request.inputs.get(position);
            format!("input {:?}", input.map_or("", |input| input.name.as_str()))
        });
        // What is copied is in memory until the answer, as what is received is.
        let _unpacked = fetch(&mut request, &inputs.map_err(about)?, held).map_err(about)?;
        let journey = watched.understood(&request);
        let mut response = self.engine.infer(request, journey).await?;
        for (position, part, span) in outputs {
            put(&mut response, position, part, &span).map_err(about)?;
        }
        Ok(response)
    }

    fn spans(
        &self,
        parts: Vec<(usize, RegionPart)>,
        what: impl Fn(usize) -> String,
    ) -> Result<Vec<(usize, RegionPart, Span)>, Status> {
        let parts = parts.into_iter().map(|(position, part)| {
            let span = self.shared_memory.span(&part);
            let span = span.map_err(|status| status.about(what(position)))?;
            Ok((position, part, span))
        });
        parts.collect()
    }

    pub(super) fn system_shared_memory_status(
        &self,
        asked: &SystemSharedMemoryStatusRequest,
    ) -> Result<SystemSharedMemoryStatusResponse, Status> {
        let regions = self
            .shared_memory
            .regions(RegionKind::System, &asked.name)?;
        let regions = regions.iter().filter_map(|region| system(region));
        Ok(SystemSharedMemoryStatusResponse {
            regions: regions
                .map(|region| (region.name.clone(), region))
                .collect(),
        })
    }

    pub(super) fn system_shared_memory_register(
        &self,
        asked: &SystemSharedMemoryRegisterRequest,
    ) -> Result<SystemSharedMemoryRegisterResponse, Status> {
        let (name, key) = (&asked.name, &asked.key);
        let memory = &self.shared_memory;
        memory.register_system(name, key, asked.offset, asked.byte_size)?;
        tracing::info!(
            name,
            key,
            bytes = asked.byte_size,
            "shared memory registered"
        );
        Ok(SystemSharedMemoryRegisterResponse {})
    }

    pub(super) fn system_shared_memory_unregister(
        &self,
        asked: &SystemSharedMemoryUnregisterRequest,
    ) -> SystemSharedMemoryUnregisterResponse {
        self.shared_memory
            .unregister(RegionKind::System, &asked.name);
        tracing::debug!(name = asked.name, "shared memory unregistered");
        SystemSharedMemoryUnregisterResponse {}
    }

    pub(super) fn cuda_shared_memory_status(
        &self,
        asked: &CudaSharedMemoryStatusRequest,
    ) -> Result<CudaSharedMemoryStatusResponse, Status> {
        let regions = self.shared_memory.regions(RegionKind::Cuda, &asked.name)?;
        let regions = regions.iter().filter_map(|region| cuda(region));
        Ok(CudaSharedMemoryStatusResponse {
            regions: regions
                .map(|region| (region.name.clone(), region))
                .collect(),
        })
    }

    pub(super) fn cuda_shared_memory_register(
        &self,
        asked: &CudaSharedMemoryRegisterRequest,
    ) -> Result<CudaSharedMemoryRegisterResponse, Status> {
        let (name, device) = (&asked.name, asked.device_id);
        let memory = &self.shared_memory;
        memory.register_cuda(name, &asked.raw_handle, device, asked.byte_size)?;
        tracing::info!(
            name,
            device,
            bytes = asked.byte_size,
            "shared memory registered"
        );
        Ok(CudaSharedMemoryRegisterResponse {})
    }

    pub(super) fn cuda_shared_memory_unregister(
        &self,
        asked: &CudaSharedMemoryUnregisterRequest,
    ) -> CudaSharedMemoryUnregisterResponse {
        self.shared_memory.unregister(RegionKind::Cuda, &asked.name);
        tracing::debug!(name = asked.name, "shared memory unregistered");
        CudaSharedMemoryUnregisterResponse {}
    }
}

fn system(region: &Region) -> Option<SystemRegion> {
    let RegionMemory::System { key, offset, .. } = &region.memory else {
        return None;
    };
    Some(SystemRegion {
        name: region.name.clone(),
        key: key.clone(),
        offset: *offset,
        byte_size: region.bytes,
    })
}

fn cuda(region: &Region) -> Option<CudaRegion> {
    let RegionMemory::Cuda { device, .. } = &region.memory else {
        return None;
    };
    Some(CudaRegion {
        name: region.name.clone(),
        device_id: u64::try_from(*device).unwrap_or_default(),
        byte_size: region.bytes,
    })
}

/// Copies inputs from where they lie, once there is room for all of them.
fn fetch(
    request: &mut InferRequest,
    inputs: &[(usize, RegionPart, Span)],
    held: Option<&Arc<Held>>,
) -> Result<Option<Unpacked>, Status> {
    let bytes = inputs.iter().map(|(_, _, span)| span.bytes());
    let bytes = bytes.fold(0, usize::saturating_add);
    let unpacked = held.map(|held| held.take_unpacked(bytes)).transpose()?;
    for (position, _, span) in inputs {
        if let Some(input) = request.inputs.get_mut(*position) {
            let read = span.read();
            input.tensor.data =
                read.map_err(|status| status.about(format_args!("input {:?}", input.name)))?;
        }
    }
    Ok(unpacked)
}

/// Copies an output to where it is wanted.
fn put(
    response: &mut InferResponse,
    position: usize,
    part: RegionPart,
    span: &Span,
) -> Result<(), Status> {
    let Some(output) = response.outputs.get_mut(position) else {
        return Ok(());
    };
    let data = std::mem::replace(&mut output.tensor.data, Bytes::new());
    let written = span.write(&data);
    written.map_err(|status| status.about(format_args!("output {:?}", output.name)))?;
    output.region = Some(Box::new(RegionPart {
        bytes: data.len() as u64,
        ..part
    }));
    Ok(())
}
