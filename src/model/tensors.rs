//! What the configuration says of a model's inputs and outputs.

use crate::tensor::Dtype;

/// Inputs and outputs as clients are to see them; none listed: as the model has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorsPolicy {
    /// Every input of the model, or none.
    pub inputs: Vec<TensorPolicy>,
    /// The outputs that clients see, or none for all.
    pub outputs: Vec<TensorPolicy>,
}

impl TensorsPolicy {
    /// The names of the inputs that a request may leave out.
    pub fn optional(&self) -> impl Iterator<Item = &str> {
        let optional = self.inputs.iter().filter(|input| input.optional);
        optional.map(|input| input.name.as_str())
    }
}

/// One input or output. Shapes are without the batch dimension if the model has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPolicy {
    /// The model's name for it.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// What clients send or get, -1 where it varies.
    pub shape: Vec<i64>,
    /// The same elements as the model has them, if it is another shape.
    pub reshape: Option<Vec<i64>>,
    /// Of an input: how clients are told to read its dimensions. Nothing is rearranged.
    pub format: Option<TensorFormat>,
    /// Of an input: whether a request may leave it out. Then the graph's own value holds.
    pub optional: bool,
}

/// What an image's dimensions are, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorFormat {
    /// Height, width, channels.
    Nhwc,
    /// Channels, height, width.
    Nchw,
}

impl TensorPolicy {
    /// The shape that the model has.
    pub fn model_shape(&self) -> &[i64] {
        self.reshape.as_deref().unwrap_or(&self.shape)
    }
}

/// The inputs and outputs that `tensors` lists, by name.
pub fn declared<'a>(tensors: &'a [TensorPolicy], name: &str) -> Option<&'a TensorPolicy> {
    tensors.iter().find(|tensor| tensor.name == name)
}
