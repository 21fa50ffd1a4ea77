//! Bodies of V2's REST protocol
//! (<https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md>).

// What is missing in a JSON value is null, not a panic.
#![allow(clippy::indexing_slicing)]

use anyhow::{Context, bail, ensure};
use half::{bf16, f16};
use serde_json::Value;

use super::{Tensor, append};

/// The tensors, `inputs` or `outputs`, of a body or of a list of bodies.
pub(super) fn bodies(bytes: &[u8], what: &str) -> anyhow::Result<Vec<Vec<Tensor>>> {
    let value: Value = serde_json::from_slice(bytes)?;
    match &value {
        Value::Array(bodies) => {
            let numbered = bodies.iter().enumerate();
            let bodies = numbered.map(|(number, one)| {
                body(one, what).with_context(|| format!("number {number} of the list"))
            });
            bodies.collect()
        }
        one => Ok(vec![body(one, what)?]),
    }
}

fn body(body: &Value, what: &str) -> anyhow::Result<Vec<Tensor>> {
    let tensors = body[what].as_array();
    let tensors = tensors.with_context(|| format!("has no {what}"))?;
    let tensors = tensors.iter().map(|written| {
        let name = written["name"].as_str();
        let name = name.with_context(|| format!("one of the {what} has no name"))?;
        tensor(name, written).with_context(|| name.to_owned())
    });
    tensors.collect()
}

/// A tensor of this name as JSON describes it.
pub(crate) fn tensor(name: &str, written: &Value) -> anyhow::Result<Tensor> {
    let datatype = written["datatype"].as_str().context("has no datatype")?;
    let shape = written["shape"].as_array().context("has no shape")?;
    let shape: Option<Vec<i64>> = shape.iter().map(Value::as_i64).collect();
    let shape = shape.context("has a shape of something else than whole numbers")?;
    let mut data = Vec::new();
    let mut count = 0;
    elements(&written["data"], datatype, &mut data, &mut count)?;
    let wanted = shape
        .iter()
        .try_fold(1_i64, |all, size| all.checked_mul(*size));
    ensure!(
        wanted == Some(count),
        "{shape:?} was said, and {count} elements were found"
    );
    Ok(Tensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape,
        data: data.into(),
    })
}

/// Nested or flat, as the protocol allows.
fn elements(
    value: &Value,
    datatype: &str,
    data: &mut Vec<u8>,
    count: &mut i64,
) -> anyhow::Result<()> {
    if let Value::Array(values) = value {
        return values
            .iter()
            .try_for_each(|value| elements(value, datatype, data, count));
    }
    *count += 1;
    element(value, datatype, data).with_context(|| format!("{value} is no {datatype}"))
}

fn element(value: &Value, datatype: &str, data: &mut Vec<u8>) -> anyhow::Result<()> {
    let fraction = || value.as_f64().context("not a number");
    let signed = || value.as_i64().context("not a whole number");
    let unsigned = || value.as_u64().context("not a whole number");
    match datatype {
        "BOOL" => data.push(u8::from(value.as_bool().context("not true or false")?)),
        "INT8" => data.extend(i8::try_from(signed()?)?.to_le_bytes()),
        "INT16" => data.extend(i16::try_from(signed()?)?.to_le_bytes()),
        "INT32" => data.extend(i32::try_from(signed()?)?.to_le_bytes()),
        "INT64" => data.extend(signed()?.to_le_bytes()),
        "UINT8" => data.push(u8::try_from(unsigned()?)?),
        "UINT16" => data.extend(u16::try_from(unsigned()?)?.to_le_bytes()),
        "UINT32" => data.extend(u32::try_from(unsigned()?)?.to_le_bytes()),
        "UINT64" => data.extend(unsigned()?.to_le_bytes()),
        "FP16" => data.extend(f16::from_f64(fraction()?).to_le_bytes()),
        "BF16" => data.extend(bf16::from_f64(fraction()?).to_le_bytes()),
        "FP32" => data.extend((fraction()? as f32).to_le_bytes()),
        "FP64" => data.extend(fraction()?.to_le_bytes()),
        "BYTES" => append(data, value.as_str().context("not text")?.as_bytes())?,
        _ => bail!("the element type is not known"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_and_flat_data_are_the_same() {
        let body = |data: &str| {
            let text = format!(
                r#"{{"inputs":[{{"name":"x","datatype":"INT16","shape":[2,2],"data":{data}}}]}}"#
            );
            bodies(text.as_bytes(), "inputs").unwrap()
        };
        assert_eq!(body("[[1,2],[3,-4]]"), body("[1,2,3,-4]"));
        let data = &body("[1,2,3,-4]")[0][0].data;
        assert_eq!(data[..], [1, 0, 2, 0, 3, 0, 252, 255]);
    }

    #[test]
    fn a_list_is_several_requests() {
        let text = br#"[{"inputs":[{"name":"a","datatype":"BYTES","shape":[1],"data":["hi"]}]},
            {"inputs":[{"name":"b","datatype":"FP64","shape":[1],"data":[0.5]},
                       {"name":"c","datatype":"BOOL","shape":[2],"data":[true,false]}]}]"#;
        let requests = bodies(text, "inputs").unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0][0].data, b"\x02\0\0\0hi"[..]);
        assert_eq!(requests[1][1].data, [1, 0][..]);
    }

    #[test]
    fn mistakes_name_their_place() {
        for (text, said) in [
            ("{", "EOF"),
            ("[{}]", "number 0 of the list: has no inputs"),
            (r#"{"inputs":[{}]}"#, "one of the inputs has no name"),
            (
                r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[300]}]}"#,
                "x: 300 is no INT8",
            ),
            (
                r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1]}]}"#,
                "x: [2] was said, and 1 elements",
            ),
            (
                r#"{"inputs":[{"name":"x","datatype":"FP8","shape":[1],"data":[1]}]}"#,
                "x: 1 is no FP8: the element type is not known",
            ),
        ] {
            let error = bodies(text.as_bytes(), "inputs").unwrap_err();
            assert!(format!("{error:#}").contains(said), "{error:#}");
        }
    }
}
