//! Damaged, exchanged, hostile: an index that is not what was written is refused with file and offset, and never answered from.

mod damage;
mod exchanged;
mod hostile;
mod victim;
