#include "multimodal/remote.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "multimodal/uri.h"
#include "tests/support/http_server.h"

namespace vlr {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HttpServer;
using ::testing::Not;
using Answer = HttpServer::Answer;
using namespace std::string_literals;

constexpr SourceOptions kAllowed = {.allow_remote = true, .allow_private = true};

/// The body, or "ERROR: message".
std::string text_of(const Result<std::vector<std::byte>>& bytes) {
  if (!bytes) return "ERROR: " + bytes.error().message();
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}
std::string read(const std::string& url, const SourceOptions& options = kAllowed) {
  return text_of(read_source(url, {}, options));
}
SourceOptions with_max_bytes(int64_t max_bytes) {
  SourceOptions options = kAllowed;
  options.max_bytes = max_bytes;
  return options;
}

TEST(Remote, Body) {
  const std::string body = std::string(300'000, 'x') + '\0' + "end";
  const HttpServer server([&](const std::string&) { return HttpServer::ok(body); });
  EXPECT_EQ(read(server.url("/a.png?b=c#d")), body);
  EXPECT_EQ(read("HTTP://127.0.0.1:" + std::to_string(server.port())), body);
  EXPECT_EQ(read(server.url("/", "localhost")), body);
}

TEST(Remote, LengthsThatAreNotAnnounced) {
  const HttpServer server([&](const std::string& target) -> Answer {
    if (target == "/close") return {"HTTP/1.1 200 OK\r\n\r\nhello"};
    return {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"};
  });
  EXPECT_EQ(read(server.url("/close")), "hello");
  EXPECT_EQ(read(server.url("/chunked")), "hello");
}

// What is not in the URL is not sent: no cookie, password or encoding; and no proxy is asked.
TEST(Remote, Request) {
  const HttpServer server([](const std::string&) {
    return Answer{"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 1\r\n\r\nx"};
  });
  for (const char* name : {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"})
    ASSERT_EQ(setenv(name, "http://127.0.0.1:1", 1), 0);
  EXPECT_EQ(read(server.url("/a.png?b=c#d")), "x");
  EXPECT_EQ(read(server.url("/a.png?b=c#d")), "x");
  for (const char* name : {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"}) unsetenv(name);
  const std::string request =
      "GET /a.png?b=c HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(server.port()) +
      "\r\nUser-Agent: vlr\r\nAccept: */*\r\n\r\n";
  EXPECT_THAT(server.requests(), ElementsAre(request, request));
}

// As Python's requests has it: a file that is stored compressed comes out as it was.
TEST(Remote, ContentEncodings) {
  // gzip and zlib of "hello, hello, hello"; gzip of a million zeros.
  const std::string gzip(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\xd7\x51\xc8\x40\xa2"
      "\x00\x9f\xa1\xca\x09\x13\x00\x00\x00",
      29);
  const std::string zlib("\x78\x9c\xcb\x48\xcd\xc9\xc9\xd7\x51\xc8\x40\xa2\x00\x44\x28\x06\xd5",
                         17);
  const std::string bomb =
      std::string(
          "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xed\xc1\x01\x01\x00\x00\x00\x82\x20\xff"
          "\xaf\x6e\x48\x40\x01",
          25) +
      std::string(968, '\x00') + std::string("\xaf\x06\x9e\xcb\x79\x12\x40\x42\x0f\x00", 10);
  const HttpServer server([&](const std::string& target) -> Answer {
    const bool deflate = target == "/deflate";
    const std::string body = deflate ? zlib : target == "/bomb" ? bomb : gzip;
    return {fmt::format("HTTP/1.1 200 OK\r\nContent-Encoding: {}\r\nContent-Length: {}\r\n\r\n",
                        deflate ? "deflate" : "gzip", body.size()) +
            body};
  });
  EXPECT_EQ(read(server.url("/gzip")), "hello, hello, hello");
  EXPECT_EQ(read(server.url("/deflate")), "hello, hello, hello");
  EXPECT_THAT(read(server.url("/gzip"), with_max_bytes(18)), HasSubstr("at most 18 are allowed"));
  EXPECT_THAT(read(server.url("/bomb"), with_max_bytes(100'000)),
              HasSubstr("bytes, at most 100000 are allowed"));
  for (const std::string& request : server.requests())
    EXPECT_THAT(request, Not(HasSubstr("Accept-Encoding")));
}

TEST(Remote, PathsAreQuoted) {
  const HttpServer server([](const std::string& target) { return HttpServer::ok(target); });
  EXPECT_EQ(read(server.url("/a b.png?c=d e")), "/a%20b.png?c=d%20e");
  EXPECT_EQ(read(server.url("/stra\xc3\x9f"
                            "e.png")),
            "/stra%C3%9Fe.png");
  EXPECT_EQ(read(server.url("/a%20b%2F%41.png")), "/a%20b%2FA.png");
  EXPECT_EQ(read(server.url("/100%.png")), "/100%25.png");
  EXPECT_EQ(media::quoted_url("http://h/a\"<>\\^`{|}b\n"),
            "http://h/a%22%3C%3E%5C%5E%60%7B%7C%7Db%0A");
  EXPECT_EQ(media::quoted_url("http://us er@h"), "http://us er@h");
  EXPECT_EQ(media::quoted_url("HTTP://h?a b"), "HTTP://h?a%20b");
}

TEST(Remote, LimitsOfItsOwn) {
  const HttpServer server([](const std::string& target) -> Answer {
    if (target == "/silent") return {"", false};
    return {"HTTP/1.1 200 OK\r\n\r\n" + std::string(1'000'000, 'x')};
  });
  SourceOptions options = kAllowed;
  options.max_remote_bytes = 1000;
  EXPECT_THAT(read(server.url("/"), options), HasSubstr("at most 1000 are allowed"));
  options.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_THAT(read(server.url("/silent"), options), HasSubstr("in time"));
  EXPECT_THAT(read(server.url("/silent"), options),
              HasSubstr("the time for all URLs of a request is over"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST(Remote, OnlyStatus200) {
  const HttpServer server([](const std::string& target) {
    return Answer{"HTTP/1.1 " + target.substr(1) + " x\r\nContent-Length: 4\r\n\r\nbody"};
  });
  const auto code = [&](const std::string& target) {
    return read_source(server.url(target), {}, kAllowed).error().code();
  };
  for (const std::string status : {"201", "206", "302", "404", "410", "403", "500"}) {
    EXPECT_EQ(read(server.url("/" + status)),
              "ERROR: " + server.url("/" + status) + ": status " + status + ", expected 200");
  }
  EXPECT_EQ(code("/404"), Code::kNotFound);
  EXPECT_EQ(code("/410"), Code::kNotFound);
  EXPECT_EQ(code("/403"), Code::kDataLoss);
  EXPECT_EQ(code("/500"), Code::kDataLoss);
}

TEST(Remote, EmptyAndCutBodies) {
  const HttpServer server([](const std::string& target) -> Answer {
    if (target == "/empty") return HttpServer::ok("");
    if (target == "/cut") return {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"};
    if (target == "/cut_chunk")
      return {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello"};
    if (target == "/cut_header") return {"HTTP/1.1 200 OK\r\nContent-"};
    if (target == "/no_http") return {"hello"};
    return {""};
  });
  EXPECT_EQ(read(server.url("/empty")), "ERROR: " + server.url("/empty") + ": is empty");
  EXPECT_EQ(read_source(server.url("/empty"), {}, kAllowed).error().code(), Code::kInvalidArgument);
  for (const char* target : {"/cut", "/cut_chunk", "/no_http", "/nothing"}) {
    const auto bytes = read_source(server.url(target), {}, kAllowed);
    EXPECT_EQ(bytes.error().code(), Code::kDataLoss) << target << ": " << text_of(bytes);
  }
  EXPECT_FALSE(read_source(server.url("/cut_header"), {}, kAllowed).ok());
  EXPECT_THAT(read(server.url("/cut")), HasSubstr("95 bytes remaining to read"));
}

TEST(Remote, Limit) {
  const HttpServer server([](const std::string& target) -> Answer {
    if (target == "/announced") return HttpServer::ok(std::string(1'000'000, 'x'));
    if (target == "/lie")
      return {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + std::string(1'000'000, 'x')};
    if (target == "/redirect")
      return {"HTTP/1.1 302 x\r\nLocation: /announced\r\n\r\n" + std::string(1'000'000, 'x')};
    return {"HTTP/1.1 200 OK\r\n\r\n" + std::string(1'000'000, 'x')};
  });
  EXPECT_EQ(read(server.url("/announced"), with_max_bytes(1'000'000)).size(), 1'000'000u);
  EXPECT_EQ(read(server.url("/open"), with_max_bytes(1'000'000)).size(), 1'000'000u);
  EXPECT_EQ(read(server.url("/lie"), with_max_bytes(10)), std::string(10, 'x'));
  EXPECT_EQ(
      read(server.url("/announced"), with_max_bytes(999'999)),
      "ERROR: " + server.url("/announced") + ": has 1000000 bytes, at most 999999 are allowed");
  EXPECT_THAT(read(server.url("/announced"), with_max_bytes(10)),
              HasSubstr(": has 1000000 bytes, at most 10 are allowed"));
  EXPECT_THAT(read(server.url("/open"), with_max_bytes(999'999)),
              HasSubstr(": has at least 1000000 bytes, at most 999999 are allowed"));
  EXPECT_THAT(read(server.url("/redirect"), with_max_bytes(999'999)), HasSubstr("has at least"));
  EXPECT_THAT(read(server.url("/open"), with_max_bytes(0)), HasSubstr("at most 0"));
  EXPECT_EQ(read_source(server.url("/open"), {}, with_max_bytes(5)).error().code(),
            Code::kInvalidArgument);
}

TEST(Remote, TimeoutIsOfTheWhole) {
  const HttpServer server([](const std::string& target) -> Answer {
    if (target == "/silent") return {"", false};
    if (target == "/slow") return {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", false};
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    return HttpServer::redirect("/again");
  });
  SourceOptions options = kAllowed;
  options.timeout_seconds = 0.15;
  options.max_redirects = 1000;
  for (const char* target : {"/silent", "/slow", "/redirects"}) {
    const auto start = std::chrono::steady_clock::now();
    const auto bytes = read_source(server.url(target), {}, options);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(bytes.error().code(), Code::kDataLoss) << target;
    EXPECT_THAT(bytes.error().message(), HasSubstr("in time (10 s to connect, 0.15 s in all)"))
        << target;
    EXPECT_GE(seconds.count(), 0.14) << target;
    EXPECT_LT(seconds.count(), 1) << target;
  }
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    options.timeout_seconds = bad;
    EXPECT_EQ(read_source(server.url("/"), {}, options).error().code(), Code::kInvalidArgument);
  }
  options.timeout_seconds = std::numeric_limits<double>::infinity();
  options.max_redirects = 1;
  EXPECT_THAT(read(server.url("/"), options), HasSubstr("redirects more than 1 times"));
}

TEST(Remote, Redirects) {
  const HttpServer server([&](const std::string& target) -> Answer {
    if (target == "/end?x") return HttpServer::ok("end");
    if (target == "/folder/relative") return HttpServer::redirect("../end?x");
    if (target == "/loop") return HttpServer::redirect("/loop", 301);
    if (target == "/404?secret") return {"HTTP/1.1 404 x\r\n\r\n"};
    if (target == "/to_404") return HttpServer::redirect("/404?secret");
    const int left = std::stoi(target.substr(1));
    constexpr int kStatus[] = {301, 302, 303, 307, 308};
    return HttpServer::redirect(left == 1 ? "/end?x" : fmt::format("/{}", left - 1),
                                kStatus[left % 5]);
  });
  EXPECT_EQ(read(server.url("/1")), "end");
  EXPECT_EQ(read(server.url("/5")), "end");
  EXPECT_EQ(read(server.url("/folder/relative")), "end");
  EXPECT_EQ(read(server.url("/6")), "ERROR: " + server.url("/6") +
                                        ": redirects more than 5 times, last to " +
                                        server.url("/end?…"));
  EXPECT_THAT(read(server.url("/loop")), HasSubstr("redirects more than 5 times"));
  EXPECT_EQ(read(server.url("/to_404")), "ERROR: " + server.url("/to_404") + ": redirected to " +
                                             server.url("/404?…") + ": status 404, expected 200");
  SourceOptions none = kAllowed;
  none.max_redirects = 0;
  EXPECT_EQ(read(server.url("/end?x"), none), "end");
  EXPECT_THAT(read(server.url("/1"), none), HasSubstr("redirects more than 0 times"));
  none.max_redirects = -1;
  EXPECT_THAT(read(server.url("/1"), none), HasSubstr("max_redirects -1"));
}

TEST(Remote, RedirectsGoToHttpOnly) {
  const HttpServer server(
      [](const std::string& target) { return HttpServer::redirect(target.substr(1)); });
  for (const std::string to : {"file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/a",
                               "data:,abc", "dict://127.0.0.1/a"}) {
    const auto bytes = read_source(server.url("/" + to), {}, kAllowed);
    EXPECT_EQ(bytes.error().code(), Code::kInvalidArgument) << to << ": " << text_of(bytes);
    EXPECT_THAT(bytes.error().message(), HasSubstr("which is neither http: nor https:")) << to;
  }
  using media::check_redirect;
  EXPECT_TRUE(check_redirect("http://a/", "http://b/").ok());
  EXPECT_TRUE(check_redirect("http://a/", "https://b/").ok());
  EXPECT_TRUE(check_redirect("https://a/", "HTTPS://b/").ok());
  EXPECT_EQ(check_redirect("HTTPS://a/", "HTTP://b/c?d").message(),
            "redirects from https: to http://b/c?…");
  EXPECT_FALSE(check_redirect("http://a/", "").ok());
}

TEST(Remote, PasswordsStayWithTheirHost) {
  const HttpServer* self = nullptr;
  const HttpServer server([&](const std::string& target) {
    return target == "/end" ? HttpServer::ok("end")
                            : HttpServer::redirect(self->url("/end", "localhost"));
  });
  self = &server;
  EXPECT_EQ(read(server.url("/start", "me:secret@127.0.0.1")), "end");
  const std::vector<std::string> requests = server.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_THAT(requests[0], HasSubstr("Authorization: Basic "));
  EXPECT_THAT(requests[1], Not(HasSubstr("Authorization")));
  EXPECT_THAT(requests[1], Not(HasSubstr("Referer")));
}

TEST(Remote, PrivateAddressesHaveToBeAllowed) {
  const HttpServer server([](const std::string&) { return HttpServer::ok("x"); });
  const std::string port = std::to_string(server.port());
  for (const std::string host : {"127.0.0.1", "localhost", "0.0.0.0", "0x7f.1", "2130706433",
                                 "[::ffff:127.0.0.1]", "[::1]", "127.0.0.2"}) {
    const auto bytes = read_source("http://" + host + ":" + port + "/", {}, {.allow_remote = true});
    EXPECT_EQ(bytes.error().code(), Code::kInvalidArgument) << host;
    EXPECT_THAT(bytes.error().message(),
                HasSubstr("which is not public; allow_private_addresses allows it"))
        << host;
  }
  EXPECT_EQ(read(server.url("/"), {.allow_remote = true}),
            "ERROR: " + server.url("/") +
                ": its host has the address 127.0.0.1, which is not public; "
                "allow_private_addresses allows it");
  EXPECT_TRUE(server.requests().empty());
}

// 127.0.0.1 plays a public address.
bool is_public(std::span<const uint8_t> address) {
  return std::ranges::equal(address, std::vector<uint8_t>{127, 0, 0, 1});
}

TEST(Remote, RedirectsToPrivateAddresses) {
  const HttpServer* self = nullptr;
  const HttpServer server(
      [&](const std::string&) { return HttpServer::redirect(self->url("/secret", "127.0.0.2")); });
  self = &server;
  const auto bytes = media::fetch(server.url("/"), kAllowed, is_public);
  EXPECT_EQ(bytes.error().code(), Code::kInvalidArgument);
  EXPECT_EQ(bytes.error().message(), "redirected to " + server.url("/secret", "127.0.0.2") +
                                         ": its host has the address 127.0.0.2, which is not "
                                         "public; allow_private_addresses allows it");
  EXPECT_EQ(server.requests().size(), 1u);
}

// localhost is 127.0.0.1 and ::1: with one of them allowed, what goes wrong there is what is said.
TEST(Remote, OneOfTwoAddresses) {
  const HttpServer server([](const std::string&) { return HttpServer::ok("x"); });
  EXPECT_EQ(text_of(media::fetch(server.url("/", "localhost"), kAllowed, is_public)), "x");

  const int v6 = socket(AF_INET6, SOCK_STREAM, 0);
  if (v6 < 0) GTEST_SKIP() << "no IPv6 here";
  close(v6);
  const auto only_v6 = [](std::span<const uint8_t> address) { return address.size() == 16; };
  const auto bytes = media::fetch(server.url("/", "localhost"), kAllowed, only_v6);
  EXPECT_EQ(bytes.error().code(), Code::kDataLoss) << text_of(bytes);
  EXPECT_THAT(bytes.error().message(), HasSubstr("Failed to connect to localhost"));
}

TEST(Remote, NoSuchHostOrServer) {
  int port = 0;
  {
    const HttpServer ended([](const std::string&) { return Answer{}; });
    port = ended.port();
  }
  const std::string url = "http://127.0.0.1:" + std::to_string(port) + "/a?b";
  EXPECT_EQ(read_source(url, {}, kAllowed).error().code(), Code::kDataLoss);
  EXPECT_THAT(read(url), HasSubstr("/a?…: Failed to connect to 127.0.0.1"));
  for (const std::string bad : {"http://", "http://a b/", "http://127.0.0.1:port/", "http://[::/"})
    EXPECT_EQ(read_source(bad, {}, kAllowed).error().code(), Code::kInvalidArgument) << read(bad);
  EXPECT_THAT(read(std::string("http://127.0.0.1\0.example/", 26)), HasSubstr("NUL"));
}

TEST(Remote, AnyThread) {
  const HttpServer server([](const std::string& target) { return HttpServer::ok(target); });
  std::vector<std::string> got(8);
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < got.size(); ++i) {
      threads.emplace_back([&, i] {
        for (int n = 0; n < 5; ++n) got[i] = read(server.url(fmt::format("/{}", i)));
      });
    }
  }
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], fmt::format("/{}", i));
}

}  // namespace
}  // namespace vlr
