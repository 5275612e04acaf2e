// Work shared among threads that are made for it and end with it: nothing spins, nothing survives a fork.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

// work(i) for i of 0 ... units - 1, on at most `threads` threads, this one among them. The first exception is thrown again here.
template <class F> static void share(int64_t units, int threads, F &&work) {
  if (threads < 2 || units < 2) {
    for (int64_t i = 0; i < units; i++) work(i);
    return;
  }
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  auto loop = [&] {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < units;) work(i);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      next.store(units);
    }
  };
  std::vector<std::thread> others;
  try {
    for (int t = 1; t < threads && t < units; t++) others.emplace_back(loop);
  } catch (const std::system_error &) {  // no more threads to be had: those that are there do it
  }
  loop();
  for (auto &thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

// A kernel's body behind the C interface: 0, or 1 where memory ran out, 2 for anything else.
template <class F> static int guarded(F &&body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  } catch (...) {
    return 2;
  }
}
