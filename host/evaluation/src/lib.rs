//! The evaluation: functions in every sandbox, side by side, measured by whoever wants to know, on their own machine.
//!
//! `spore bench` is what people see of it ([guide](../../../docs/evaluation.md)). It knows gateways by their API and programs
//! by their processes, and none of the crates that they are made of.
//!
//! - [`configuration`]: what is measured, and how long;
//! - [`targets`]: where functions run; [`workloads`]: what they do;
//! - [`measures`]: what is measured of them; [`load`]: traces and schedules;
//! - [`run`]: goes through all of it; [`record`]: the document with every sample;
//! - [`statistics`]: figures, intervals, comparisons; [`report`]: text and a page of them;
//! - [`machine`]: what it was measured on; [`processes`]: what the kernel tells.

pub(crate) mod client;
pub mod configuration;
pub(crate) mod context;
pub mod load;
pub mod machine;
pub mod measures;
pub mod names;
pub mod processes;
pub mod record;
pub mod report;
pub mod run;
pub mod statistics;
pub mod targets;
pub mod workloads;
