//! The reference's commands and database statements as a language: grammar, parameters, help, completion.
//!
//! Text goes in, typed statements come out, or a problem with its place in the text. Nothing is carried out here: what a
//! statement does is the business of whoever asked for it. The cmdlets are a table (`catalogue`); parameters, help,
//! completion and the typed form all come from it.

pub mod action;
pub mod bind;
pub mod catalogue;
pub mod cmdlet;
pub mod complete;
mod cursor;
pub mod database;
pub mod help;
pub mod parse;
pub mod problem;
pub mod row;
pub mod stage;
pub mod terms;
mod value;

pub use action::Action;
pub use database::DatabaseStatement;
pub use parse::{Known, Statement, What, parse};
pub use problem::Problem;
pub use row::{Cell, Row};
pub use value::Value;
