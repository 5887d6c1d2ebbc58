#include <vector>

#include "bind.hpp"
#include "bptt/optim.hpp"

namespace bptt::bindings {
namespace {

// A tuple of its own: it keeps the arrays alive whatever becomes of the caller's list.
py::tuple tuple_of(const std::string& caller, const char* what, py::handle list) {
    if (!PyList_Check(list.ptr()) && !PyTuple_Check(list.ptr()))
        type_error(caller, std::string(what) + " is a " + type_name(list) + ", expected a list of arrays");
    return py::reinterpret_steal<py::tuple>(PySequence_Tuple(list.ptr()));
}

std::string entry(const char* list, std::size_t i) {
    return std::string(list) + "[" + std::to_string(i) + "]";
}

// The first array's dtype decides; without arrays it does not matter.
bool is_single_list(const std::string& caller, const char* what, py::handle list) {
    const py::tuple arrays = tuple_of(caller, what, list);
    return arrays.size() == 0 || is_single(caller, entry(what, 0).c_str(), py::object(arrays[0]));
}

// Arrays that are written in place.
template <class R>
class WrittenList {
public:
    WrittenList() = default;
    WrittenList(const std::string& caller, const char* what, py::handle list)
        : held_(tuple_of(caller, what, list)) {
        for (std::size_t i = 0; i < held_.size(); ++i)
            views_.push_back(in_place<R>(caller, entry(what, i).c_str(), py::object(held_[i])));
    }
    const Arrays<R>& views() const { return views_; }

private:
    py::tuple held_;
    Arrays<R> views_;
};

// Arrays that are read; where they are not contiguous, copies of them.
template <class R>
class InputList {
public:
    InputList(const std::string& caller, const char* what, py::handle list) {
        const py::tuple arrays = tuple_of(caller, what, list);
        for (std::size_t i = 0; i < arrays.size(); ++i) {
            held_.emplace_back(caller, entry(what, i).c_str(), py::object(arrays[i]));
            views_.push_back(held_.back());
        }
    }
    const Arrays<const R>& views() const { return views_; }

private:
    std::vector<Input<R>> held_;
    Arrays<const R> views_;
};

// A list of the optimizer's own and its name.
struct Own {
    const char* name;
    py::handle list;
};

template <class R, class Step>
void update_of(const std::string& caller, Step step, py::handle parameters, py::handle gradients, Own first,
               Own second) {
    const WrittenList<R> parameters_in(caller, "parameters", parameters);
    const InputList<R> gradients_in(caller, "gradients", gradients);
    const WrittenList<R> first_in(caller, first.name, first.list);
    const WrittenList<R> second_in =
        second.name != nullptr ? WrittenList<R>(caller, second.name, second.list) : WrittenList<R>();
    py::gil_scoped_release without_gil;
    step(parameters_in.views(), gradients_in.views(), first_in.views(), second_in.views());
}

// step(parameters, gradients, first, second) without the GIL, for the dtype that the parameters have.
template <class Step>
void update(const std::string& caller, Step step, py::handle parameters, py::handle gradients, Own first,
            Own second = {}) {
    if (is_single_list(caller, "parameters", parameters))
        update_of<float>(caller, step, parameters, gradients, first, second);
    else
        update_of<double>(caller, step, parameters, gradients, first, second);
}

template <class R>
double norm_of(py::handle arrays) {
    const InputList<R> arrays_in("global_norm", "arrays", arrays);
    py::gil_scoped_release without_gil;
    return global_norm(arrays_in.views());
}

template <class R>
void change(const char* caller, void (*function)(const Arrays<R>&, double), py::handle arrays, double value) {
    const WrittenList<R> arrays_in(caller, "arrays", arrays);
    py::gil_scoped_release without_gil;
    function(arrays_in.views(), value);
}

}  // namespace

void register_optim(py::module_& module) {
    using py::arg;
    module.def(
        "sgd",
        [](py::object parameters, py::object gradients, py::object velocity, double lr, double momentum,
           bool nesterov, double weight_decay, const std::vector<bool>& spared) {
            update("sgd",
                   [=](const auto& p, const auto& g, const auto& own, const auto&) {
                       sgd(p, g, own, lr, momentum, nesterov, weight_decay, spared);
                   },
                   parameters, gradients, {"velocity", velocity});
        },
        arg("parameters"), arg("gradients"), arg("velocity"), arg("lr"), arg("momentum"), arg("nesterov"),
        arg("weight_decay"), arg("spared"));
    module.def(
        "rmsprop",
        [](py::object parameters, py::object gradients, py::object square_average, double lr, double alpha,
           double eps, double weight_decay, const std::vector<bool>& spared) {
            update("rmsprop",
                   [=](const auto& p, const auto& g, const auto& own, const auto&) {
                       rmsprop(p, g, own, lr, alpha, eps, weight_decay, spared);
                   },
                   parameters, gradients, {"square_average", square_average});
        },
        arg("parameters"), arg("gradients"), arg("square_average"), arg("lr"), arg("alpha"), arg("eps"),
        arg("weight_decay"), arg("spared"));
    module.def(
        "adagrad",
        [](py::object parameters, py::object gradients, py::object square_sum, double lr, double eps,
           double weight_decay, const std::vector<bool>& spared) {
            update("adagrad",
                   [=](const auto& p, const auto& g, const auto& own, const auto&) {
                       adagrad(p, g, own, lr, eps, weight_decay, spared);
                   },
                   parameters, gradients, {"square_sum", square_sum});
        },
        arg("parameters"), arg("gradients"), arg("square_sum"), arg("lr"), arg("eps"), arg("weight_decay"),
        arg("spared"));
    module.def(
        "adam",
        [](py::object parameters, py::object gradients, py::object first_moment, py::object second_moment,
           Index step, double lr, double beta1, double beta2, double eps, double weight_decay, bool decoupled,
           const std::vector<bool>& spared) {
            update("adam",
                   [=](const auto& p, const auto& g, const auto& own, const auto& second) {
                       adam(p, g, own, second, step, lr, beta1, beta2, eps, weight_decay, decoupled, spared);
                   },
                   parameters, gradients, {"first_moment", first_moment}, {"second_moment", second_moment});
        },
        arg("parameters"), arg("gradients"), arg("first_moment"), arg("second_moment"), arg("step"),
        arg("lr"), arg("beta1"), arg("beta2"), arg("eps"), arg("weight_decay"), arg("decoupled"),
        arg("spared"));

    module.def(
        "global_norm",
        [](py::object arrays) {
            return is_single_list("global_norm", "arrays", arrays) ? norm_of<float>(arrays)
                                                                   : norm_of<double>(arrays);
        },
        arg("arrays"));
    module.def(
        "scale",
        [](py::object arrays, double factor) {
            if (is_single_list("scale", "arrays", arrays))
                change<float>("scale", scale, arrays, factor);
            else
                change<double>("scale", scale, arrays, factor);
        },
        arg("arrays"), arg("factor"));
    module.def(
        "clip_by_value",
        [](py::object arrays, double limit) {
            if (is_single_list("clip_by_value", "arrays", arrays))
                change<float>("clip_by_value", clip_by_value, arrays, limit);
            else
                change<double>("clip_by_value", clip_by_value, arrays, limit);
        },
        arg("arrays"), arg("limit"));
}

}  // namespace bptt::bindings
