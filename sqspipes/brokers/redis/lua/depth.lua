-- Returns {all messages, those in flight}, or nil if there is no such queue.
local queue = find(name)
if not queue then
  return false
end
return {call('HLEN', queue.messages), call('ZCOUNT', queue.flight, '(' .. now, '+inf')}
