// What the examples train with: Adam over a model's parameters, behind a clip of the gradient's norm.
#pragma once

#include <algorithm>

#include "bptt/bptt.hpp"

class Training {
public:
    Training(const bptt::Model<float>& model, double lr) : parameters_(bptt::parameters(model)), lr_(lr) {
        for (const auto& [name, value] : parameters_)
            for (auto* moments : {&first_, &second_}) {
                moments->push_back({name, bptt::Array<float>(value.shape())});
                std::fill_n(moments->back().value.data(), value.elements(), 0.0f);
            }
    }

    // Updates the parameters in place.
    void update(const bptt::NamedArrays<float>& gradients) {
        const double norm = bptt::global_norm<float>(bptt::const_views(gradients));
        if (norm > 1) bptt::scale<float>(bptt::views(gradients), 1 / norm);
        bptt::adam<float>(bptt::views(parameters_), bptt::const_views(gradients), bptt::views(first_),
                          bptt::views(second_), ++step_, lr_, 0.9, 0.999, 1e-8, 0, false);
    }

private:
    bptt::NamedArrays<float> parameters_, first_, second_;
    double lr_;
    bptt::Index step_ = 0;
};
