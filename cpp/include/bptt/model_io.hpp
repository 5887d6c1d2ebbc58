// Models in files: safetensors, as Python's bptt.save_model and load_model have them, and RTNeural's JSON.
//
// Readers trust nothing: what is cut short, lies about a size, is of another version, has a layer that bptt
// does not know, a tensor too many, too few, of another shape or type, or a number that is not finite, is
// a std::invalid_argument that names it, and then there is no model at all. Files that can't be read or
// written are a std::system_error (a std::runtime_error). Files are replaced as a whole or not at all.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "bptt/layers.hpp"

namespace bptt {

// What a file says beside its model, as the vocabulary of a character model.
using Metadata = std::map<std::string, std::string>;

template <class R>
struct LoadedModel {
    Model<R> model;
    Metadata metadata;
};

// ---- safetensors -----------------------------------------------------------------------------------
//
// The tensors are parameters(model) by their names, of float (F32) or double (F64). The layers stand as
// JSON in the metadata "bptt_model": the format's number, 1, and of each layer its name, its type (RNN, LSTM,
// GRU, Linear, Embedding, Activation) and what Python's constructor of that type takes.

template <class R>
BPTT_API void save_model(const std::string& path, const Model<R>& model, const Metadata& metadata = {});
// A file of the other type of numbers is an error, not a conversion.
template <class R>
BPTT_API LoadedModel<R> load_model(const std::string& path);

// The same in memory, as for a model that is compiled into a program.
template <class R>
BPTT_API std::string model_to_bytes(const Model<R>& model, const Metadata& metadata = {});
template <class R>
BPTT_API LoadedModel<R> model_from_bytes(std::string_view bytes);

// ---- RTNeural --------------------------------------------------------------------------------------
//
// Two kinds of JSON are read. Keras's: {"in_shape": [..., D], "layers": [{"type", "activation", "shape",
// "weights"}, ...]} with the types lstm, gru (reset_after), dense, time-distributed-dense and activation; an
// activation, of a dense layer or by itself, is one of Nonlinearity's and a layer here; layers are named "0",
// "1", ... PyTorch's: a state_dict, {"lstm.weight_ih_l0": [[...]], ..., "dense.weight": ...}, alone or as the
// entry "state_dict"; the layers come in the order of the file, and LSTM, GRU and linear layers are told from
// each other by their tensors' names and shapes. A state_dict says nothing of activations: whoever knows of
// them puts them into the model that was read. Layers of other types are refused.
//
// Written is Keras's kind. It has no place for embeddings, the RNN, a GRU that resets before, a second
// direction or a learned initial state: those are refused. The LSTM's two biases become their sum, and an
// activation behind a linear layer stands inside of it.

template <class R>
BPTT_API Model<R> load_rtneural(const std::string& path);
template <class R>
BPTT_API void save_rtneural(const std::string& path, const Model<R>& model);
template <class R>
BPTT_API Model<R> rtneural_from_text(std::string_view text);
template <class R>
BPTT_API std::string rtneural_to_text(const Model<R>& model);

}  // namespace bptt
