//! The laying end to end, and the cutting.

use bytes::Bytes;

use super::{Cut, Origin, Ragged};
use crate::model::{BatchInputKind, MOST_FP32_COUNT};
use crate::serving::trial::aligned;
use crate::tensor::{Dtype, Shape, Slicer, Tensor, elements};

impl Ragged {
    /// Everything that a run of these requests takes, whose inputs are in the order of the client's.
    pub(in crate::serving) fn whole(&self, requests: &[&[Tensor]]) -> Result<Vec<Tensor>, String> {
        let parts = self.parts.iter().map(|part| {
            let of = |sent: usize| requests.iter().filter_map(move |request| request.get(sent));
            match part.from {
                Origin::Rows(sent) => Ok(stacked(part.dtype, rows_shape(of(sent)), of(sent))),
                Origin::Elements(sent) => Ok(stacked(part.dtype, laid_shape(of(sent)), of(sent))),
                Origin::Made(kind, source) => make(kind, part.dtype, of(source)),
            }
        });
        parts.collect()
    }

    /// What each request has of an output; none if it is cut by rows.
    pub(in crate::serving) fn cut<'a>(
        &self,
        position: usize,
        output: &Tensor,
        requests: impl Iterator<Item = &'a [Tensor]>,
    ) -> Option<Result<Vec<Tensor>, String>> {
        let cut = self.cuts.get(position)?.as_ref()?;
        Some(cut.apply(output, requests))
    }
}

impl Cut {
    fn apply<'a>(
        &self,
        output: &Tensor,
        requests: impl Iterator<Item = &'a [Tensor]>,
    ) -> Result<Vec<Tensor>, String> {
        let all = elements(&output.shape).ok_or("more elements than can be counted came out")?;
        let flat = Tensor {
            shape: Shape::new(&[whole(all)]),
            ..output.clone()
        };
        let mut slicer = Slicer::new(flat, all).map_err(|error| error.to_string())?;
        let (mut shares, mut taken) = (Vec::new(), 0_usize);
        for request in requests {
            let shape = self.share(request);
            let count = elements(&shape).unwrap_or(usize::MAX);
            taken = taken.saturating_add(count);
            if taken > all {
                break;
            }
            let own = slicer.take(count).map_err(|error| error.to_string())?;
            shares.push(Tensor { shape, ..own });
        }
        if taken != all {
            return Err(format!(
                "{} of {all} elements came out, which is not what the inputs that it is cut by have",
                output.shape
            ));
        }
        Ok(shares)
    }

    /// The shape of a request's share.
    fn share(&self, request: &[Tensor]) -> Shape {
        let source = request.get(self.source);
        let sizes = self.shape.iter().enumerate().map(|(axis, size)| {
            let own = source.and_then(|source| source.shape.get(axis).copied());
            size.or(own).unwrap_or(0)
        });
        Shape::new(&sizes.collect::<Vec<i64>>())
    }
}

/// The shape of rows behind each other; none of what is left out.
pub(in crate::serving) fn rows_shape<'a>(
    mut parts: impl Iterator<Item = &'a Tensor> + Clone,
) -> Shape {
    let rows = parts.clone().filter_map(|part| part.shape.first()).sum();
    let first = parts.next().map(|part| part.shape.with_rows(rows));
    first.unwrap_or_default()
}

/// The shape of elements behind each other.
pub(in crate::serving) fn laid_shape<'a>(parts: impl Iterator<Item = &'a Tensor>) -> Shape {
    let count = parts.map(|part| elements(&part.shape).unwrap_or(0)).sum();
    Shape::new(&[whole(count)])
}

fn stacked<'a>(dtype: Dtype, shape: Shape, parts: impl Iterator<Item = &'a Tensor>) -> Tensor {
    let parts: Vec<&[u8]> = parts.map(|part| &part.data[..]).collect();
    Tensor {
        dtype,
        shape,
        data: aligned(&parts.concat()),
    }
}

/// An input that says something of the requests' inputs `parts`, as FP32 or INT32.
pub(in crate::serving) fn make<'a>(
    kind: BatchInputKind,
    dtype: Dtype,
    parts: impl Iterator<Item = &'a Tensor> + Clone,
) -> Result<Tensor, String> {
    let counts = parts.clone().map(|part| elements(&part.shape).unwrap_or(0));
    let mut columns = None;
    let numbers: Vec<usize> = match kind {
        BatchInputKind::ElementCount => counts.collect(),
        BatchInputKind::AccumulatedElementCount => running(counts).collect(),
        BatchInputKind::AccumulatedElementCountWithZero => {
            std::iter::once(0).chain(running(counts)).collect()
        }
        BatchInputKind::MaxElementCountAsShape => vec![0; counts.max().unwrap_or(0)],
        BatchInputKind::ItemShape | BatchInputKind::ItemShapeFlatten => {
            let inner = parts.clone().next().map_or(0, |part| part.shape.len());
            columns = (kind == BatchInputKind::ItemShape).then_some(inner.saturating_sub(1));
            parts.flat_map(item_shapes).collect()
        }
    };
    let shape = match columns {
        None => Shape::new(&[whole(numbers.len())]),
        Some(columns) => {
            let rows = numbers.len().checked_div(columns).unwrap_or(0);
            Shape::new(&[whole(rows), whole(columns)])
        }
    };
    let mut data = Vec::with_capacity(numbers.len() * 4);
    for number in numbers {
        data.extend(counted(number, dtype)?);
    }
    Ok(Tensor {
        dtype,
        shape,
        data: Bytes::from(data),
    })
}

/// The sums up to each.
fn running(counts: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
    counts.scan(0_usize, |sum, count| {
        *sum = sum.saturating_add(count);
        Some(*sum)
    })
}

/// The shape of each row, without the batch dimension.
fn item_shapes(part: &Tensor) -> impl Iterator<Item = usize> {
    let size = |size: &i64| usize::try_from(*size).unwrap_or(0);
    let rows = part.shape.first().map_or(0, size);
    let own = part.shape.get(1..).unwrap_or(&[]);
    (0..rows).flat_map(move |_| own.iter().map(size))
}

/// A count as an element, if it can be told exactly.
fn counted(number: usize, dtype: Dtype) -> Result<[u8; 4], String> {
    let exact = match dtype {
        Dtype::Fp32 if number <= MOST_FP32_COUNT => Some((number as f32).to_le_bytes()),
        Dtype::Fp32 => None,
        _ => i32::try_from(number).ok().map(i32::to_le_bytes),
    };
    exact.ok_or_else(|| format!("{number} elements are more than {dtype} can count exactly"))
}

fn whole(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
