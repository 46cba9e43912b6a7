#!lua flags=allow-oom
-- Post the truth in place of the hold, and write the journal entry with it.
-- Specification: settle() of policies/budgets.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  the tag's index of holds, mh:{tag}:holds, and its journal
-- ARGV     two for each request, served in order: its msgpack settlement (wire.py), and its event
--          for the journal, empty for none
-- answers  {now_us, answer...}: 1 the hold was there, 0 it was not (journal only), 2 it may not be
--          reaped (nothing changed), or {9, message}
--
-- Of a request that was admitted without the store it bears the accounts to post on, and the leases
-- that paid for it. They are posted on once, however often it is sent: a mark under its id says that
-- it was, and for as long its id is spent, so that its admission, should it still be on its way, holds
-- nothing. The journal has it as one whose hold was there: the counters know it.
-- allow-oom: a full store must still let holds become terminal.
local call, min, max = redis.call, math.min, math.max
local MAX_DEBT_US, GATE_KEPT_MS = 1125899906842624, 60000
local KEPT_AFTER_MS, KEPT_SPANS = 3456000000, 40 -- as in admit.lua
local MARKED_MS = 604800000 -- a worker that cannot reach the store for longer may post twice
local index, journal = KEYS[1], KEYS[2]
local hold_prefix = string.sub(index, 1, -2) .. ':'
local tag_prefix = string.sub(index, 1, -6) -- mh:{tag}:
local time = call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now_ms = math.floor(now_us / 1000)

-- A reaper that was held up must not end a hold that lives again, nor one that is another's to end.
local function may_reap(hold_id, late_ms, lease, token)
  local expiry = call('ZSCORE', index, hold_id)
  return expiry and expiry + late_ms <= now_ms and call('GET', lease) == token
end

local function correct(key, delta)
  local tat = min(max(tonumber(call('GET', key) or 0), now_us) + delta, now_us + MAX_DEBT_US)
  if tat > now_us then
    call('SET', key, tat, 'PX', math.ceil((tat - now_us) / 1000) + GATE_KEPT_MS)
  else
    call('DEL', key)
  end
end

-- A hold that led to nothing gives its ticket back, if it still has it.
local function give_back(ticket, hold_id)
  local key = ticket[1] .. ':' .. ticket[2]
  if string.sub(call('GET', key) or '', 42) == hold_id then
    call('DEL', key)
    call('ZREM', ticket[1], ticket[2])
  end
end

local function kept_ms(account) return min(KEPT_AFTER_MS, KEPT_SPANS * (account[4] - account[3])) end

-- An account that may not begin at zero is left to whoever opens it: he has the journal, and so
-- this. A cut of before would not know it, and is void.
local function post(account, s)
  local key, actual = account[1], account[5] == 1 and s[3] or s[2]
  if call('EXISTS', key) == 0 then
    local epoch = call('GET', tag_prefix .. 'epoch') or ''
    local since_ms = tonumber(string.match(epoch, ':(%d+):[^:]*$') or 0)
    if account[3] < max(account[7] or 0, since_ms) then
      call('DEL', tag_prefix .. 'cut')
      return
    end
    call('HINCRBY', key, 'posted', actual)
    call('PEXPIREAT', key, account[4] + kept_ms(account))
  else
    call('HINCRBY', key, 'posted', actual)
  end
end

-- Leased first: posted + held + leased stays below the cap even between the two.
local function repay(account, lease_id, s)
  if not lease_id or lease_id == '' then return end
  local key, field = account[1], 'lease:' .. lease_id
  local paid = min(tonumber(call('HGET', key, field) or 0), s[2])
  if paid > 0 then
    call('HINCRBY', key, field, 0 - paid)
    call('HINCRBY', key, 'leased', 0 - paid)
  end
end

local function settle(packed, event)
  local s = cmsgpack.unpack(packed)
  local hold_id, found = s[1], 0
  if s[5] and not may_reap(hold_id, unpack(s[5])) then return 2 end
  local hold_key = hold_prefix .. hold_id
  local record = call('GET', hold_key)
  local unheld = s[7]
  if unheld and #unheld == 0 then unheld = nil end
  if record and record ~= '' then
    found = 1
    local _, r = cmsgpack.unpack_one(record)
    local grant, a = r[2], r[4]
    local money, tokens = a[3] + a[8] * a[4] * grant, a[5] + a[8] * grant
    call('DEL', hold_key) -- first: should a key turn out broken, nothing is ever posted twice
    call('ZREM', index, hold_id)
    for _, account in ipairs(a[11]) do
      local held, actual = money, s[2]
      if account[5] == 1 then held, actual = tokens, s[3] end
      -- Held first: posted + held stays below the cap even between the two.
      call('HINCRBY', account[1], 'held', 0 - held) -- 0 - x: minus zero is no integer to Redis
      if not unheld then call('HINCRBY', account[1], 'posted', actual) end
    end
    for _, slot in ipairs(a[10]) do call('ZREM', slot[1], hold_id) end
    for _, correction in ipairs(s[4]) do correct(correction[1], correction[2]) end
    if s[6] and a[13] then give_back(a[13], hold_id) end
  end
  if unheld or (found == 1 and s[5] and not s[6]) then
    local first = call('SET', tag_prefix .. 'posted:' .. hold_id, '', 'NX', 'PX', MARKED_MS)
    if unheld and first then
      call('SET', hold_key, '', 'PX', MARKED_MS)
      for i, account in ipairs(unheld) do
        repay(account, s[8] and s[8][i], s)
        post(account, s)
      end
    end
  end
  if event ~= '' then call('XADD', journal, '*', 'e', event, 'h', unheld and 1 or found) end
  return found
end

local answers = {now_us}
for i = 1, #ARGV / 2 do
  local ok, answer = pcall(settle, ARGV[2 * i - 1], ARGV[2 * i])
  if not ok then
    answer = {9, type(answer) == 'table' and answer.err or tostring(answer)}
  end
  answers[i + 1] = answer
end
return answers
