#include "comm/failure.h"

#include <cstdio>

namespace slipstream::comm {

namespace {

std::string where(const Place& place) {
  std::string text = "\n  where:    group \"" + place.group + "\" (" + list_ranks(place.members) + ")";
  if (place.call > 0) text += ", call " + std::to_string(place.call);
  if (!place.moment.empty()) text += ", " + place.moment;
  return text;
}

std::string received(const std::vector<Testimony>& testimonies) {
  std::string text;
  for (const Testimony& each : testimonies) {
    text += text.empty() ? "\n  received: " : "\n            ";
    text += list_ranks(each.ranks);
    if (!each.moment.empty()) text += " (" + each.moment + ")";
    text += ": " + each.text;
  }
  return text;
}

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", seconds);
  return text;
}

}  // namespace

GroupError mismatch(const Place& place, const std::vector<Testimony>& calls) {
  return GroupError("collective_mismatch",
                    "ranks called different collectives" + where(place) +
                        "\n  expected: the same operation, dtype and shape of each" + received(calls) +
                        "\n  to do:    start every rank with the same config and program");
}

GroupError timeout(const Place& place, const Fingerprint& call, const std::vector<int>& missing,
                   double seconds, const std::vector<Testimony>& meanwhile) {
  return GroupError("collective_timeout",
                    list_ranks(missing) + " did not come to " + describe(call) + " within " +
                        seconds_text(seconds) + where(place) + received(meanwhile) +
                        "\n  to do:    see what that rank last printed; where it is only slow, raise "
                        "comm.timeout_seconds");
}

GroupError lost(const Place& place, const Fingerprint& call, const std::vector<int>& ranks,
                const std::string& how) {
  return GroupError("rank_lost", list_ranks(ranks) + " " + how + " before " + describe(call) + where(place));
}

GroupError aborted(const Place& place, int rank, const std::string& reason) {
  return GroupError("rank_lost", list_ranks({rank}) + " gave up: " + reason + where(place));
}

}  // namespace slipstream::comm
