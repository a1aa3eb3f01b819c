// Package suite decides how a suite of test cases is run over unequal workers,
// and what its verdict is. It is pure: who drives it tells it what happened and
// when, and does what it says.
//
// A [Queue] holds the cases. [Queue.Next] hands out chunks of them:
//
//   - Long cases go first, by predicted time: what earlier runs took, else the
//     mean of what the file's other cases took, else the mean of all.
//   - A chunk is made when a slot is free or about to be, never before: what is
//     learned in the meantime, of times and of speeds, goes into the next chunk.
//   - Chunks shrink. Each takes a fixed part of the time that is left if all
//     finish together, so that the last ones are small, but never so small
//     that starting an interpreter costs more than it gains.
//   - A chunk is made for one worker and bound to it. Its size and the longest
//     case that may be in it follow from that worker's speed: a slow one gets no
//     case that a fast one would end sooner, however late that starts. What does not
//     start, because others keep the worker busy or it went away, is taken back.
//
// A case that was recorded is done, whatever becomes of the chunk it was in:
// only what had not ended goes back into the queue. Failures are tried again
// alone at the end, as often as wanted.
package suite
