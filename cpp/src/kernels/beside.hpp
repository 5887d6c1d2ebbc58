// Calls side by side: the directions of a layer, which need nothing of each other, and the layers of a stack,
// where each step of one needs that step of the one before it.
//
// A loop's work comes in parts, which are done in their order (Loop::parts, part), and each of which takes it
// to some step (Loop::reached). A thread takes a call that nobody has and that may go on, does its next part,
// and says so: layer l is at one part while layer l-1 is at the next one. What a part computes does not
// depend on who does it, nor on how many steps it has, so the bits are those of one call after the other.
#pragma once

#include "kernels/plan_now.hpp"
#include "kernels/space.hpp"
#include "kernels/table.hpp"
#include "kernels/threads.hpp"

namespace bptt::BPTT_SET {

template <class Loop, class Args>
class Beside {
public:
    // All room is made here: what makes it may throw.
    Beside(const kernels::Calls<Args>& calls, Index part_steps, int threads)
        : calls_(calls), threads_(threads), loop_(calls.count, calls.call, part_steps), state_(calls.count) {
        for (int l = 0; l < calls.count; ++l) state_[l] = {0, 0};
    }

    // What each of the threads does, each once.
    void work(int thread) const {
        Barrier alone(1);
        int own = smaller(thread, calls_.count - 1);
        for (Wait wait(threads_); !finished();) {
            const int l = take(own);
            if (l < 0) {
                wait.once();
                continue;
            }
            own = l;
            wait = Wait(threads_);
            const Loop& loop = loop_[l];
            const Index part = done(l), before = loop.reached(part), after = loop.reached(part + 1);
            loop.part(part, 0, alone);
            if (after > before) calls_.pass(l, before, after);
            __atomic_store_n(&state_[l].done, part + 1, __ATOMIC_RELEASE);
            leave(l);
        }
    }

private:
    struct alignas(64) State {
        Index done;  // parts
        bool taken;
    };
    struct OneThread : Args {
        explicit OneThread(const Args& args) : Args(args) { this->threads = 1; }
    };
    struct Its : OneThread, Loop {
        Its(int l, const Args* call, Index part_steps)
            : OneThread(call[l]), Loop(static_cast<const OneThread&>(*this), part_steps) {}
    };

    // A thread stays with a call, whose weights it has in its cache, as long as that may go on and no later
    // one in the chain is so many parts behind it.
    static constexpr Index kBehind = 4;

    BPTT_INLINE Index done(int l) const { return __atomic_load_n(&state_[l].done, __ATOMIC_ACQUIRE); }
    BPTT_INLINE bool may_go_on(int l) const {
        const Index parts = done(l);
        if (parts == loop_[l].parts()) return false;
        return l == 0 || !calls_.chained || loop_[l - 1].reached(done(l - 1)) >= loop_[l].reached(parts + 1);
    }
    BPTT_INLINE bool taken(int l) const { return __atomic_load_n(&state_[l].taken, __ATOMIC_RELAXED); }
    BPTT_INLINE void leave(int l) const { __atomic_store_n(&state_[l].taken, false, __ATOMIC_RELEASE); }

    bool finished() const {
        for (int l = calls_.count; l-- > 0;)
            if (done(l) < loop_[l].parts()) return false;
        return true;
    }

    // The call whose next part this thread is to do, which nobody else has then; -1: none may go on.
    int take(int own) const {
        const bool stays = !taken(own) && may_go_on(own);
        for (int l = calls_.count; l-- > 0;) {
            if (stays && l > own && (!calls_.chained || done(own) - done(l) < kBehind)) continue;
            if (!may_go_on(l) || __atomic_exchange_n(&state_[l].taken, true, __ATOMIC_ACQUIRE)) continue;
            if (may_go_on(l)) return l;  // nobody was quicker
            leave(l);
        }
        return -1;
    }

    const kernels::Calls<Args>& calls_;
    const int threads_;
    const Each<Its> loop_;
    const Space<State> state_;
};

// Runs the calls in whichever way is thought to be the sooner done. Loop: constructed of Args, then run(), or
// of Args and how many steps a part has at most, then part by part.
template <class R, class Loop, class Args>
void run_calls(const kernels::Calls<Args>& calls) {
    if (calls.count > 1) {
        const BesidePlan plan = beside_now<R>(
            Loop::work, calls.count, [&](int l) { return calls.call[l].dims; }, calls.call[0].lengths,
            calls.chained, calls.call[0].threads);
        const Team team(plan.threads);
        if (team.threads() > 1) {
            const Beside<Loop, Args> beside(calls, plan.part_steps, team.threads());
            if (!detail::spends_most_memory()) {
                team.run([&](int thread, Barrier&) { beside.work(thread); });
                return;
            }
            // One by one they may take more. There was room for this way; now they go the other one.
        }
    }
    for (int l = 0; l < calls.count; ++l) {
        Loop(calls.call[l]).run();
        calls.pass(l, 0, calls.call[l].dims.T);
    }
}

}  // namespace bptt::BPTT_SET
