#include "bptt/optim.hpp"

#include <cmath>

#include "bptt/runtime.hpp"
#include "dispatch.hpp"
#include "validate.hpp"

namespace bptt {
namespace {

// The kernels' form of lists whose entries correspond. A list that is not there is null.
template <class R>
class List {
public:
    List(const Arrays<R>* values, const Arrays<const R>* gradients, const Arrays<R>* first = nullptr,
         const Arrays<R>* second = nullptr)
        : entries_(values != nullptr ? values->size() : gradients->size()) {
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            kernels::ListEntry<R>& entry = entries_[i];
            if (values != nullptr) entry.value = (*values)[i].data;
            if (gradients != nullptr) entry.gradient = (*gradients)[i].data;
            if (first != nullptr) entry.first = (*first)[i].data;
            if (second != nullptr) entry.second = (*second)[i].data;
            entry.count = values != nullptr ? (*values)[i].elements() : (*gradients)[i].elements();
        }
    }
    // Spared arrays do not decay. keep: by how much an array that does is shrunk beside its step.
    List& decaying(double decay, const std::vector<bool>& spared, double keep = 1) {
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            const bool decays = spared.empty() || !spared[i];
            entries_[i].decay = static_cast<R>(decays ? decay : 0);
            entries_[i].keep = static_cast<R>(decays ? keep : 1);
        }
        return *this;
    }
    operator kernels::List<R>() const {
        return {entries_.data(), static_cast<Index>(entries_.size()), static_cast<int>(get_num_threads())};
    }

private:
    std::vector<kernels::ListEntry<R>> entries_;
};

template <class R>
const kernels::OptimTable<R>& table() {
    return detail::table<kernels::OptimTable<R>>();
}

// Parameters, gradients, and one array of the optimizer's own a parameter, named `own`.
template <class R>
void check(const validate::Caller& caller, const Arrays<R>& parameters, const Arrays<const R>& gradients,
           const std::vector<bool>& spared,
           std::initializer_list<std::pair<const char*, const Arrays<R>*>> own) {
    validate::list(caller, parameters, "parameters");
    validate::same_list(caller, gradients, "gradients", parameters);
    std::vector<std::pair<const char*, const Arrays<R>*>> written{{"parameters", &parameters}};
    for (const auto& [name, arrays] : own) {
        validate::same_list(caller, *arrays, name, parameters);
        written.emplace_back(name, arrays);
    }
    validate::apart(caller, written);
    if (!spared.empty() && spared.size() != parameters.size())
        caller.fail("spared has " + std::to_string(spared.size()) + " entries, expected " +
                    std::to_string(parameters.size()) + ", as parameters, or none");
}

}  // namespace

template <class R>
void sgd(const Arrays<R>& parameters, const Arrays<const R>& gradients, const Arrays<R>& velocity, double lr,
         double momentum, bool nesterov, double weight_decay, const std::vector<bool>& spared) {
    const validate::Caller caller("sgd");
    const kernels::SgdStep step{lr, momentum, nesterov};
    if (momentum == 0 && velocity.empty()) {
        check<R>(caller, parameters, gradients, spared, {});
        table<R>().sgd(List<R>(&parameters, &gradients).decaying(weight_decay, spared), step);
    } else {
        check<R>(caller, parameters, gradients, spared, {{"velocity", &velocity}});
        table<R>().sgd(List<R>(&parameters, &gradients, &velocity).decaying(weight_decay, spared), step);
    }
}

template <class R>
void rmsprop(const Arrays<R>& parameters, const Arrays<const R>& gradients, const Arrays<R>& square_average,
             double lr, double alpha, double eps, double weight_decay, const std::vector<bool>& spared) {
    check<R>(validate::Caller("rmsprop"), parameters, gradients, spared,
             {{"square_average", &square_average}});
    table<R>().rmsprop(List<R>(&parameters, &gradients, &square_average).decaying(weight_decay, spared),
                       {lr, alpha, eps});
}

template <class R>
void adagrad(const Arrays<R>& parameters, const Arrays<const R>& gradients, const Arrays<R>& square_sum,
             double lr, double eps, double weight_decay, const std::vector<bool>& spared) {
    check<R>(validate::Caller("adagrad"), parameters, gradients, spared, {{"square_sum", &square_sum}});
    table<R>().adagrad(List<R>(&parameters, &gradients, &square_sum).decaying(weight_decay, spared),
                       {lr, eps});
}

template <class R>
void adam(const Arrays<R>& parameters, const Arrays<const R>& gradients, const Arrays<R>& first_moment,
          const Arrays<R>& second_moment, Index step, double lr, double beta1, double beta2, double eps,
          double weight_decay, bool decoupled, const std::vector<bool>& spared) {
    const validate::Caller caller("adam");
    if (step < 1) caller.fail("step is " + std::to_string(step) + ", expected at least 1");
    check<R>(caller, parameters, gradients, spared,
             {{"first_moment", &first_moment}, {"second_moment", &second_moment}});
    const auto correction = [step](double beta) { return 1 - std::pow(beta, static_cast<double>(step)); };
    List<R> list(&parameters, &gradients, &first_moment, &second_moment);
    list.decaying(decoupled ? 0 : weight_decay, spared, decoupled ? 1 - lr * weight_decay : 1);
    table<R>().adam(list, {beta1, beta2, eps, lr / correction(beta1), 1 / std::sqrt(correction(beta2))});
}

template <class R>
double global_norm(const Arrays<const R>& arrays) {
    validate::list(validate::Caller("global_norm"), arrays, "arrays");
    return std::sqrt(table<R>().square_sum(List<R>(nullptr, &arrays)));
}

template <class R>
void scale(const Arrays<R>& arrays, double factor) {
    const validate::Caller caller("scale");
    validate::list(caller, arrays, "arrays");
    validate::apart<R>(caller, {{"arrays", &arrays}});
    table<R>().scale(List<R>(&arrays, nullptr), factor);
}

template <class R>
void clip_by_value(const Arrays<R>& arrays, double limit) {
    const validate::Caller caller("clip_by_value");
    validate::list(caller, arrays, "arrays");
    validate::apart<R>(caller, {{"arrays", &arrays}});
    table<R>().clip_by_value(List<R>(&arrays, nullptr), limit);
}

#define BPTT_INSTANTIATE(R)                                                                                 \
    template void sgd(const Arrays<R>&, const Arrays<const R>&, const Arrays<R>&, double, double, bool,     \
                      double, const std::vector<bool>&);                                                    \
    template void rmsprop(const Arrays<R>&, const Arrays<const R>&, const Arrays<R>&, double, double,       \
                          double, double, const std::vector<bool>&);                                        \
    template void adagrad(const Arrays<R>&, const Arrays<const R>&, const Arrays<R>&, double, double,       \
                          double, const std::vector<bool>&);                                                \
    template void adam(const Arrays<R>&, const Arrays<const R>&, const Arrays<R>&, const Arrays<R>&, Index, \
                       double, double, double, double, double, bool, const std::vector<bool>&);
BPTT_INSTANTIATE(float)
BPTT_INSTANTIATE(double)
#undef BPTT_INSTANTIATE
template double global_norm(const Arrays<const float>&);
template double global_norm(const Arrays<const double>&);
template void scale(const Arrays<float>&, double);
template void scale(const Arrays<double>&, double);
template void clip_by_value(const Arrays<float>&, double);
template void clip_by_value(const Arrays<double>&, double);

}  // namespace bptt
