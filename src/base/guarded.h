// The last line of defence at the top of a thread. Our own code does not throw, and adapters stop the exceptions of their
// libraries; what slips through, lack of memory above all, ends the work at hand as an error and never the program.
#pragma once

#include <exception>
#include <new>
#include <utility>

#include "base/status.h"

namespace pensieve {

// Runs `body`. Internal with the exception's words when one escapes it.
template <typename Body>
Status Guarded(Body&& body) {
  try {
    std::forward<Body>(body)();
    return OkStatus();
  } catch (const std::bad_alloc&) {
    return Internal("out of memory");  // short enough to need none itself
  } catch (const std::exception& exception) { return Internal(exception.what()); } catch (...) {
    return Internal("unknown error");
  }
}

}  // namespace pensieve
