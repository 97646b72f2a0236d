//! How metrics get their names: `buildr_`, the words, the unit where there is one. A counter's samples
//! end in `_total` of themselves.

use prometheus_client::{
    metrics::histogram::Histogram,
    registry::{Metric, Registry},
};

/// Metrics by name.
#[derive(Debug)]
pub struct Names(Registry);

impl Default for Names {
    fn default() -> Self {
        Self(Registry::with_prefix("buildr"))
    }
}

impl Names {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names this one.
    pub fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register(name, help, metric);
    }

    /// Names one that begins at nothing.
    pub fn zero<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.add(name, help, metric.clone());
        metric
    }

    /// Names a histogram with these upper bounds.
    pub fn times<const N: usize>(&mut self, name: &str, help: &str, bounds: [f64; N]) -> Histogram {
        let metric = Histogram::new(bounds);
        self.add(name, help, metric.clone());
        metric
    }

    /// All of them.
    pub fn registry(self) -> Registry {
        self.0
    }
}
