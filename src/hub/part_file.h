// A file on its way: where its bytes go, which of them are there, and the note beside it that lets a later run go on.
// Private to hub/. Thread-compatible, but for Write: several threads may write different segments at once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "hub/digest.h"
#include "hub/download.h"

namespace pensieve::hub {

struct Segment {
  int64_t begin = 0;
  int64_t end = -1;  // exclusive; -1: to wherever the file ends
  int64_t done = 0;  // bytes from `begin` on that are there
  bool running = false;

  bool complete() const { return end >= 0 && begin + done == end; }
};

class PartFile {
 public:
  explicit PartFile(FileRequest request) : request_(std::move(request)) {}
  PartFile(PartFile&& other) noexcept;
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;
  PartFile& operator=(PartFile&&) = delete;
  ~PartFile();

  const FileRequest& request() const { return request_; }
  std::vector<Segment>& segments() { return segments_; }
  const std::vector<Segment>& segments() const { return segments_; }
  // Strong ETag of the document that the bytes are from; "" when the server gives none.
  const std::string& etag() const { return etag_; }
  void set_etag(std::string etag) { etag_ = std::move(etag); }
  // Whether bytes of an earlier run are among those that are there.
  bool resumed() const { return resumed_; }

  int64_t done_bytes() const;
  bool complete() const;

  // Opens DESTINATION.part and takes up what an earlier run left, if that was the same file.
  Status Open(int64_t segment_bytes);
  // Forgets all bytes; one segment from the start to the end is left.
  void Restart();
  // `offset` counts from the file's start. Thread-safe.
  Status Write(int64_t offset, std::string_view bytes) const;
  // Notes what is there, for a later run. What cannot be noted is fetched again, so there is no error.
  void SaveState() const;
  // Compares with the size and checksum of the request and gives the file its name. DataLoss: nothing is left of it.
  Status Finish(const StopCheck& stopped);
  // Removes the file and its note.
  void Remove();

 private:
  std::string path() const { return request_.destination + ".part"; }
  std::string state_path() const { return request_.destination + ".part.json"; }
  bool LoadState();
  void Close();

  FileRequest request_;
  int fd_ = -1;
  std::string etag_;
  std::vector<Segment> segments_;
  bool resumed_ = false;
};

// A system error as a Status: a full disk, a lack of rights, anything else.
Status FileError(const std::string& path, const char* doing, int error_number);

}  // namespace pensieve::hub
