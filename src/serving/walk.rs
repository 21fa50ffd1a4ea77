//! One request on its way through the graph of an ensemble: which steps can run, and what each takes.
//!
//! Tensors share memory, so that a step's output is the next one's input without a copy; each is
//! let go with the last of those who take it.

use smallvec::SmallVec;

use super::graph::Graph;
use super::request::NamedTensor;
use crate::tensor::Tensor;

/// One request on its way through a graph.
pub(super) struct Walk<'g> {
    graph: &'g Graph,
    /// By place: what is there, and how many have yet to take it.
    tensors: SmallVec<[(Option<Tensor>, usize); 8]>,
    /// By step: whether it has to run and does not yet.
    waiting: SmallVec<[bool; 8]>,
}

impl<'g> Walk<'g> {
    /// From these inputs to the outputs in these positions; other steps do not run.
    pub(super) fn new(graph: &'g Graph, inputs: Vec<Tensor>, wanted: &[usize]) -> Self {
        let mut walk = Self {
            graph,
            tensors: SmallVec::from_elem((None, 0), graph.tensors),
            waiting: SmallVec::from_elem(false, graph.steps.len()),
        };
        for position in wanted {
            walk.need(graph.outputs.get(*position));
        }
        let steps = graph.steps.iter().enumerate().rev();
        for (number, step) in steps {
            if step.gives.iter().any(|place| walk.is_needed(*place)) {
                if let Some(waiting) = walk.waiting.get_mut(number) {
                    *waiting = true;
                }
                step.inputs
                    .iter()
                    .for_each(|(_, place)| walk.need(Some(place)));
            }
        }
        for (place, tensor) in inputs.into_iter().enumerate() {
            walk.put(place, tensor);
        }
        walk
    }

    /// The next step that has everything it takes, and that.
    pub(super) fn next(&mut self) -> Option<(usize, Vec<NamedTensor>)> {
        let graph = self.graph;
        let mut steps = graph.steps.iter().zip(&self.waiting).enumerate();
        let (number, (step, _)) = steps.find(|(_, (step, waiting))| {
            **waiting && step.inputs.iter().all(|(_, place)| self.is_there(*place))
        })?;
        if let Some(waiting) = self.waiting.get_mut(number) {
            *waiting = false;
        }
        let inputs = step.inputs.iter().filter_map(|(name, place)| {
            let name = name.clone();
            let tensor = self.take(*place)?;
            Some(NamedTensor { name, tensor })
        });
        Some((number, inputs.collect()))
    }

    /// Takes in what a step gave, in the order in which it was wanted.
    pub(super) fn gave(&mut self, number: usize, outputs: impl Iterator<Item = Tensor>) {
        let step = self.graph.steps.get(number);
        let places = step.into_iter().flat_map(|step| &step.gives);
        for (place, tensor) in places.zip(outputs) {
            self.put(*place, tensor);
        }
    }

    /// The answer, when no step is left.
    pub(super) fn answer(mut self, wanted: &[usize]) -> Vec<Tensor> {
        let outputs = &self.graph.outputs;
        let wanted = wanted.iter().filter_map(|position| outputs.get(*position));
        wanted.filter_map(|place| self.take(*place)).collect()
    }

    fn need(&mut self, place: Option<&usize>) {
        let tensor = place.and_then(|place| self.tensors.get_mut(*place));
        if let Some((_, takers)) = tensor {
            *takers += 1;
        }
    }

    fn is_needed(&self, place: usize) -> bool {
        self.tensors
            .get(place)
            .is_some_and(|(_, takers)| *takers > 0)
    }

    fn is_there(&self, place: usize) -> bool {
        self.tensors
            .get(place)
            .is_some_and(|(tensor, _)| tensor.is_some())
    }

    /// Keeps a tensor for those who take it, if anybody does.
    fn put(&mut self, place: usize, tensor: Tensor) {
        if let Some((kept, takers)) = self.tensors.get_mut(place)
            && *takers > 0
        {
            *kept = Some(tensor);
        }
    }

    fn take(&mut self, place: usize) -> Option<Tensor> {
        let (tensor, takers) = self.tensors.get_mut(place)?;
        *takers = takers.saturating_sub(1);
        match takers {
            0 => tensor.take(),
            _ => tensor.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::graph::Step;
    use super::*;
    use crate::tensor::{Dtype, Shape};

    fn tensor(data: &Bytes) -> Tensor {
        Tensor {
            dtype: Dtype::Uint8,
            shape: Shape::new(&[1]),
            data: data.clone(),
        }
    }

    fn fresh(number: u8) -> Bytes {
        Bytes::from(vec![number; 64])
    }

    fn step(takes: &[usize], gives: &[usize]) -> Step {
        Step {
            name: String::new(),
            model: String::new(),
            version: String::new(),
            inputs: takes
                .iter()
                .map(|place| (format!("in{place}"), *place))
                .collect(),
            wanted: gives.iter().map(|place| format!("out{place}")).collect(),
            gives: gives.to_vec(),
        }
    }

    /// 0 -> (1, 2), each -> (3, 4), both -> 5, and 6 from 2 alone.
    fn diamond() -> Graph {
        Graph {
            steps: vec![
                step(&[0], &[1, 2]),
                step(&[1], &[3]),
                step(&[2], &[4]),
                step(&[3, 4], &[5]),
                step(&[2], &[6]),
            ],
            outputs: vec![5, 6],
            tensors: 7,
        }
    }

    fn ready(walk: &mut Walk<'_>) -> Vec<usize> {
        std::iter::from_fn(|| walk.next().map(|(number, _)| number)).collect()
    }

    #[test]
    fn steps_run_when_what_they_take_is_there() {
        let graph = diamond();
        let mut walk = Walk::new(&graph, vec![tensor(&fresh(0))], &[0, 1]);
        assert_eq!(ready(&mut walk), [0]);
        walk.gave(0, [tensor(&fresh(1)), tensor(&fresh(2))].into_iter());
        assert_eq!(ready(&mut walk), [1, 2, 4]);
        walk.gave(2, std::iter::once(tensor(&fresh(4))));
        assert!(ready(&mut walk).is_empty());
        walk.gave(1, std::iter::once(tensor(&fresh(3))));
        let (number, inputs) = walk.next().unwrap();
        let named: Vec<_> = inputs
            .iter()
            .map(|input| (input.name.as_str(), input.tensor.data[0]))
            .collect();
        assert_eq!((number, named), (3, vec![("in3", 3), ("in4", 4)]));
        walk.gave(3, std::iter::once(tensor(&fresh(5))));
        walk.gave(4, std::iter::once(tensor(&fresh(6))));
        let answer = walk.answer(&[1, 0]);
        assert_eq!(
            answer
                .iter()
                .map(|tensor| tensor.data[0])
                .collect::<Vec<_>>(),
            [6, 5]
        );
    }

    #[test]
    fn what_nobody_wants_does_not_run() {
        let graph = diamond();
        let mut walk = Walk::new(&graph, vec![tensor(&fresh(0))], &[1]);
        assert_eq!(ready(&mut walk), [0]);
        let unused = fresh(1);
        walk.gave(0, [tensor(&unused), tensor(&fresh(2))].into_iter());
        // Not kept either.
        assert!(unused.is_unique());
        assert_eq!(ready(&mut walk), [4]);
    }

    #[test]
    fn tensors_are_shared_and_let_go_with_the_last_who_takes_them() {
        let graph = diamond();
        let sent = fresh(0);
        let mut walk = Walk::new(&graph, vec![tensor(&sent)], &[0, 1]);
        let (_, inputs) = walk.next().unwrap();
        assert_eq!(inputs[0].tensor.data.as_ptr(), sent.as_ptr());
        drop(inputs);
        assert!(sent.is_unique());
        let twice = fresh(2);
        walk.gave(0, [tensor(&fresh(1)), tensor(&twice)].into_iter());
        assert_eq!(walk.next().map(|(number, _)| number), Some(1));
        assert_eq!(walk.next().map(|(number, _)| number), Some(2));
        assert!(!twice.is_unique());
        assert_eq!(walk.next().map(|(number, _)| number), Some(4));
        assert!(twice.is_unique());
    }
}
