// All of bptt.
#pragma once

#include "bptt/activations.hpp"
#include "bptt/dense.hpp"
#include "bptt/handover.hpp"
#include "bptt/layers.hpp"
#include "bptt/ledger.hpp"
#include "bptt/losses.hpp"
#include "bptt/model_io.hpp"
#include "bptt/model_stream.hpp"
#include "bptt/optim.hpp"
#include "bptt/recurrent.hpp"
#include "bptt/runtime.hpp"
#include "bptt/stream.hpp"
#include "bptt/truncation.hpp"
#include "bptt/types.hpp"
#include "bptt/version.hpp"
