// Where large memory comes from: blocks that are kept and handed out again, so that a training step at
// steady state asks the system for nothing. What is kept and what is in use exceed, together,
// the most that was in use at one time by a sixteenth and 16 MiB at most.
#pragma once

#include <cstddef>

namespace bptt::detail {

// At least `bytes`, aligned to 64, uninitialised. Throws std::bad_alloc. Any thread may call.
void* acquire(std::size_t bytes);
// Gives back what acquire returned; nullptr is fine.
void release(void* block) noexcept;
// Bytes of the blocks in use, as they were asked for, and the most of them since reset_peak.
std::size_t in_use() noexcept;
std::size_t peak() noexcept;
void reset_peak() noexcept;
// Hands all kept blocks to the system.
void release_kept() noexcept;
// Around a fork: a child would wait for ever for a lock that another thread of its parent held.
void before_fork();
void after_fork();

}  // namespace bptt::detail
