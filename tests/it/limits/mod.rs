//! What the system allows the process, and what strangers may do to what it reads and prints.

mod descriptors;
mod files;
mod lines;
mod terminal;
