#!lua
-- Take every limit and place the hold on every account, or change nothing.
-- Specification: admit() of policies/budgets.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  the tag's index of holds, mh:{tag}:holds, and its epoch
-- ARGV     the epoch that the caller knows; then two for each request, served in order: its msgpack
--          admission (wire.py), and what is kept with the hold unread
-- answers  {now_us, answer...}, one answer a request:
--          {0, duplicate, grant, held_money, remaining of each account..., wait_us of each gate...}
--          {1 rate | 2 concurrency | 3 budget | 4 stale window | 5 spent | 6 tickets |
--           8 unopened | 10 leased: it would get more if leases were back, index, retry_after_ms,
--           available, and of a budget: what is left there, 1 if it were in with nothing else held}
--          {7, 0 in flight | 1 finished | 2 other body, request id, kept answer}: another has the
--          ticket
--          {9, message}: this one failed and wrote nothing
--          The error EPOCH and the epoch that is: what the caller knows is not this state's
--
-- Every read and every check of a request comes before its first write: nothing is rolled back here.
-- Amounts stay numbers, exact to 2^53. Never format one: from 1e14 it would read 1.2345678901234e+14.
local call, min, max, floor = redis.call, math.min, math.max, math.floor
local VERSION, MAX_COUNTER, MAX_DEBT_US = 1, 9007199254740991, 1125899906842624
local KEPT_AFTER_MS = 3456000000 -- a window's counters outlive it by 40 days,
local KEPT_SPANS = 40            -- those of an hour by 40 hours
local GATE_KEPT_MS = 60000       -- an idle gate outlives any skew of clocks
local TICKET_KEPT_MS = 120000    -- a living hold's ticket outlives it; extend.lua sees to the rest
local LISTED_MS = 700000000      -- longer than any ticket is remembered
local index, epoch = KEYS[1], redis.call('GET', KEYS[2])
if epoch ~= ARGV[1] then return redis.error_reply('EPOCH ' .. (epoch or '')) end
local hold_prefix = string.sub(index, 1, -2) .. ':' -- mh:{tag}:hold:
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = floor(now_us / 1000)

-- An account that was opened since may follow those that the admission named: see correct.lua.
local function again(record, named)
  local _, r = cmsgpack.unpack_one(record)
  local grant, a = r[2], r[4]
  local answer = {0, 1, grant, a[3] + a[8] * a[4] * grant}
  for i = 1, min(named, #a[11]) do
    local account = a[11][i]
    local cap = account[2]
    if cap >= 0 then
      local b = call('HMGET', account[1], 'posted', 'held')
      cap = max(cap - (b[1] or 0) - (b[2] or 0), 0)
    end
    answer[#answer + 1] = cap
  end
  for _, gate in ipairs(a[9]) do
    answer[#answer + 1] = max((call('GET', gate[1]) or 0) - now_us, 0)
  end
  return answer
end

-- A ticket's record: the fingerprint (32 bytes), when it expires (9, msgpack), who has it.
local function replay(ticket, record)
  local first = string.sub(record, 42)
  local hold = call('GET', hold_prefix .. first)
  local living = hold and hold ~= ''
  if not living and cmsgpack.unpack(string.sub(record, 33, 41)) <= now_ms then return end
  if string.sub(record, 1, 32) ~= ticket[3] then return {7, 2, first, ''} end
  if living then return {7, 0, first, ''} end
  local answer = call('GET', ticket[1] .. ':answer:' .. first)
  if not answer or cmsgpack.unpack(string.sub(answer, 1, 9)) <= now_ms then answer = '' end
  return {7, 1, first, string.sub(answer, 10)}
end

local function crowded(ticket)
  if call('ZCOUNT', ticket[1], now_ms + 1, '+inf') < ticket[5] then return end
  local soonest = call('ZRANGE', ticket[1], now_ms + 1, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  return {6, 0, soonest[2] - now_ms, 0}
end

local function take(ticket, hold_id)
  local index, expiry = ticket[1], now_ms + ticket[4]
  local record = ticket[3] .. cmsgpack.pack(expiry) .. hold_id
  call('SET', index .. ':' .. ticket[2], record, 'PX', ticket[4] + TICKET_KEPT_MS)
  local old = call('ZRANGE', index, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, 64)
  if #old > 0 then call('ZREM', index, unpack(old)) end
  call('ZADD', index, expiry, ticket[2])
  call('PEXPIRE', index, LISTED_MS)
end

local function kept_ms(account) return min(KEPT_AFTER_MS, KEPT_SPANS * (account[4] - account[3])) end

local function fitting(room, per_token, wanted)
  if room < 0 then return -1 end
  if per_token > 0 then return floor(room / per_token) end
  return wanted
end

local function admit(packed, kept)
  local a = cmsgpack.unpack(packed)
  local hold_id, wanted, least = a[1], a[6], a[7]
  local gates, slots, accounts = a[9], a[10], a[11]
  local hold_key = hold_prefix .. hold_id

  local keys = {hold_key}
  for i = 1, #gates do keys[i + 1] = gates[i][1] end
  local ticket = a[13]
  if ticket then keys[#keys + 1] = ticket[1] .. ':' .. ticket[2] end
  local values = call('MGET', unpack(keys))
  local record = values[1]
  if record then
    if record == '' then return {5, 0, 0, 0} end
    return again(record, #accounts)
  end
  if ticket then
    local taken = values[#keys]
    local answer = taken and replay(ticket, taken) or crowded(ticket)
    if answer then return answer end
  end

  for i = 1, #accounts do
    local account = accounts[i]
    if now_ms < account[3] or now_ms >= account[4] then return {4, i - 1, 0, 0} end
  end

  local tats, longest, at = {}, 0, 0
  for i = 1, #gates do
    local gate = gates[i]
    local tat = max(tonumber(values[i + 1] or 0), now_us)
    local wait = tat + min(gate[2], gate[3]) - now_us - gate[3]
    if wait > longest then longest, at = wait, i end
    tats[i] = tat + min(gate[2], MAX_DEBT_US)
  end
  if longest > 0 then return {1, at - 1, math.ceil(longest / 1000), 0} end

  for i = 1, #slots do
    local slot = slots[i]
    if call('ZCOUNT', slot[1], now_ms + 1, '+inf') >= slot[2] then return {2, i - 1, 1000, 0} end
  end

  -- For whole numbers below 2^53 floor(a / b) is exact, so the grant is the model's to the token.
  local money, tokens, price, choices, firm = a[3], a[5], a[8] * a[4], a[8], a[14]
  local grant = wanted
  if price > 0 then grant = min(grant, floor((MAX_COUNTER - money) / price)) end
  local beside = grant -- the grant if leases stay where they are
  local unheld = grant -- the grant if nothing else were held
  local answer, new, last, blocked, left = {0, 0}, {}, -1, 0, 0
  for i = 1, #accounts do
    local account = accounts[i]
    local cap, input, per_token = account[2], money, price
    if account[5] == 1 then input, per_token = tokens, choices end
    local balance = call('HMGET', account[1], 'posted', 'held', 'leased')
    local leased = balance[3]
    new[i] = not balance[1] and not balance[2] and not leased
    if new[i] and account[3] < max(account[7] or 0, tonumber(string.match(epoch, ':(%d+):[^:]*$'))) then
      return {8, i - 1, 0, 0}
    end
    if cap >= 0 then
      local posted, held = balance[1] or 0, balance[2] or 0
      local room = cap - posted - held - input
      local fits, lent = fitting(room, per_token, wanted), 0
      if leased then
        local narrowed = fitting(room - leased, per_token, wanted)
        beside = min(beside, narrowed)
        if firm then fits, lent = narrowed, leased end
      end
      if fits < least and account[4] > last then
        local spent = min(posted + held + lent, MAX_COUNTER) -- beyond, sums are not exact
        last, blocked, left = account[4], i, cap - spent
      end
      grant = min(grant, fits)
      unheld = min(unheld, fitting(cap - posted - input - lent, per_token, wanted))
      answer[4 + i] = room
    end
  end
  if blocked > 0 then
    return {3, blocked - 1, last - now_ms, max(grant, 0), left, unheld >= least and 1 or 0}
  end
  if beside < grant then return {10, 0, 0, 0} end

  local expiry = now_ms + a[2]
  for i = 1, #gates do
    local gate, tat = gates[i], tats[i]
    if gate[2] > 0 then
      call('SET', gate[1], tat, 'PX', math.ceil((tat - now_us) / 1000) + GATE_KEPT_MS)
    end
  end
  for i = 1, #slots do call('ZADD', slots[i][1], expiry, hold_id) end
  for i = 1, #accounts do
    local account = accounts[i]
    local held, input = price * grant, money
    if account[5] == 1 then held, input = choices * grant, tokens end
    call('HINCRBY', account[1], 'held', input + held)
    if new[i] then call('PEXPIREAT', account[1], account[4] + kept_ms(account)) end
    answer[4 + i] = account[2] < 0 and -1 or answer[4 + i] - held
  end
  -- The record: [version, grant, admitted at, the admission as it came], then what is kept.
  call('SET', hold_key, '\148' .. cmsgpack.pack(VERSION, grant, now_ms) .. packed .. kept)
  call('ZADD', index, expiry, hold_id)
  if ticket then take(ticket, hold_id) end

  answer[3], answer[4] = grant, money + price * grant
  local n = 4 + #accounts
  for i = 1, #gates do
    local ahead = gates[i][2] > 0 and tats[i] or max(tonumber(values[i + 1] or 0), now_us)
    answer[n + i] = ahead - now_us
  end
  return answer
end

local answers = {now_us}
for i = 1, (#ARGV - 1) / 2 do
  -- One tenant's broken key must not take the others' answers with it.
  local ok, answer = pcall(admit, ARGV[2 * i], ARGV[2 * i + 1])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
