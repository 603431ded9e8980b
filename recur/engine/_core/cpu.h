// Which kernels this machine can run.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace recur {

// Slowest first; the last one is the default.
const std::vector<const Kernels*>& usable_kernels();

// By name, or the best one for "". Throws std::invalid_argument for one that is not here.
const Kernels* find_kernels(const std::string& name);

}  // namespace recur
